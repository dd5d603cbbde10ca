// The filters of the list: statuses with their counts, chosen values, strings, times.
import { el, onEntered, replace } from "./dom.js";
import { formatCount, formatInstant } from "./format.js";
import { STATUS_NAMES, statusChip } from "./status.js";
/** @import {ChosenFilter, ExploreStart, ListView} from "./types.js" */

/** @typedef {(change: Partial<ListView>) => unknown} OnChange */
/** @typedef {Partial<Record<ChosenFilter, string[]>>} Choices */

/** @type {readonly [ChosenFilter, string, string][]} */
const FIELDS = [
  ["name", "Workflow", "workflow function"],
  ["queue_name", "Queue", "queue"],
  ["app_version", "Version", "application version"],
  ["user", "User", "authenticated user"],
  ["executor_id", "Executor", "executor ID"],
  ["application_name", "Application", "application"],
];
/** @type {readonly ["error" | "attributes", string, string][]} */
const STRINGS = [
  ["error", "Error contains", "PaymentDeclined"],
  ["attributes", "Attributes", "tenant=t7, tier=2"],
];
/** @typedef {"start_time" | "end_time" | "completed_after"} TimeFilter */
/** @type {readonly [TimeFilter, string][]} */
const TIMES = [["start_time", "Created from"], ["end_time", "Created until"],
  ["completed_after", "Completed from"]];
const AGES = [
  ["", "created any time"],
  ["15min", "last 15 minutes"],
  ["1h", "last hour"],
  ["24h", "last 24 hours"],
  ["7d", "last 7 days"],
  ["30d", "last 30 days"],
];
const INSTANT = /^\d{4}-.*T.*(Z|[+-]\d\d:\d\d)$/;

/**
 * An instant as an input of type datetime-local holds it: in the reader's time zone.
 * @param {string} value
 */
function asLocal(value) {
  if (!INSTANT.test(value)) return "";
  const at = new Date(value);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

/** @param {string} value */
function isAge(value) {
  return AGES.some(([age]) => age === value);
}

/** The row of statuses, each a toggle. */
export class StatusBar {
  /**
   * @param {ListView} view
   * @param {OnChange} onChange
   */
  constructor(view, onChange) {
    this.view = view;
    this.onChange = onChange;
    this.node = el("div", { class: "dn-statuses", role: "group", "aria-label": "Status" });
    this.update(null, false);
  }

  /**
   * @param {Record<string, number> | null} counts null: not known
   * @param {boolean} isRead whether the database was asked for them
   */
  update(counts, isRead) {
    const chosen = this.view.status ?? [];
    replace(this.node, STATUS_NAMES.map((status) => {
      const isOn = chosen.includes(status);
      const number = counts?.[status] ?? 0;
      const others = chosen.filter((other) => other !== status);
      return el("button", {
        type: "button",
        class: "dn-status",
        "aria-pressed": String(isOn),
        "data-none": counts && !number && !isOn,
        on: { click: () => this.onChange({ status: isOn ? others : [...others, status] }) },
      }, statusChip(status), counts && el("b", {}, formatCount(number)));
    }), isRead && !counts && el("span", { class: "dn-note", title: "Counting what a search finds would read every workflow" },
      "not counted while searching"));
  }
}

/** The panel of filters, the choice of an age, and a chip for each filter that is set. */
export class FilterPanel {
  /**
   * @param {ExploreStart} start
   * @param {ListView} view
   * @param {OnChange} onChange
   * @param {() => Promise<Choices | undefined>} loadChoices
   * @param {string} id unique in the page
   */
  constructor(start, view, onChange, loadChoices, id) {
    this.fixed = start.fixed;
    this.view = view;
    this.onChange = onChange;
    this.loadChoices = loadChoices;
    this.isLoaded = false;
    this.panel = el("div", { class: "dn-panel", hidden: true, role: "group", "aria-label": "Filters" });
    this.chips = el("div", { class: "dn-chips" });
    this.fields = FIELDS.map(([key, label, hint]) => this.chosenField(key, label, hint, id));
    this.strings = STRINGS.filter(([key]) => key !== "attributes" || start.has_attributes)
      .map(([key, label, hint]) => this.stringField(key, label, hint));
    this.times = TIMES.map(([key, label]) => this.timeField(key, label));
    replace(this.panel, [...this.fields, ...this.strings, ...this.times].map((field) => field.node));
    this.ages = el("select", { "aria-label": "Created", class: "dn-select" },
      AGES.map(([value, label]) => el("option", { value }, label)));
    this.ages.addEventListener("change", () => onChange({ start_time: this.ages.value }));
    this.update();
  }

  /**
   * @param {ChosenFilter} key
   * @param {string} label
   * @param {string} hint
   * @param {string} id
   */
  chosenField(key, label, hint, id) {
    const list = el("datalist", { id: `${id}-${key}` });
    const input = el("input", { type: "text", list: list.id, placeholder: hint, autocomplete: "off",
      spellcheck: "false" });
    onEntered(input, () => {
      const value = input.value.trim();
      input.value = "";
      if (value) this.onChange({ [key]: [...new Set([...(this.view[key] ?? []), value])] });
    });
    return { key, list, node: el("label", {}, el("span", {}, label), input, list) };
  }

  /**
   * @param {"error" | "attributes"} key
   * @param {string} label
   * @param {string} hint
   */
  stringField(key, label, hint) {
    const input = el("input", { type: "text", placeholder: hint, spellcheck: "false" });
    onEntered(input, () => {
      const value = input.value.trim();
      if (value !== (this.view[key] ?? "")) this.onChange({ [key]: value });
    });
    return { key, input, node: el("label", {}, el("span", {}, label), input) };
  }

  /**
   * @param {TimeFilter} key
   * @param {string} label
   */
  timeField(key, label) {
    const input = el("input", { type: "datetime-local", step: "1" });
    input.addEventListener("change", () => {
      // With the time zone: the kernel may run in another one.
      this.onChange({ [key]: input.value ? new Date(input.value).toISOString() : "" });
    });
    return { key, input, node: el("label", {}, el("span", {}, label), input) };
  }

  /** Show the filters that are set. */
  update() {
    const { view } = this;
    replace(this.chips, this.chosenChips(), STRINGS.map(([key, label]) => view[key]
      && this.chip(`${label.toLowerCase()} ${view[key]}`, { [key]: "" })), this.timeChips(),
    this.fixed.map((text) => el("span", { class: "dn-filter" }, text)));
    for (const { key, input } of this.strings) input.value = view[key] ?? "";
    for (const { key, input } of this.times) {
      const value = asLocal(view[key] ?? "");
      // An input that is being edited is left as it is; a browser omits seconds that are zero.
      if (input.value.padEnd(value.length, ":00") !== value) input.value = value;
    }
    this.showAge(view.start_time ?? "");
  }

  /** @param {string} age */
  showAge(age) {
    this.ages.querySelector("[data-other]")?.remove();
    if (!isAge(age)) this.ages.append(el("option", { value: age, "data-other": true }, "other"));
    this.ages.value = age;
  }

  chosenChips() {
    return FIELDS.map(([key, label]) => {
      const values = this.view[key] ?? [];
      return values.map((value) => this.chip(`${label.toLowerCase()} ${value}`,
        { [key]: values.filter((other) => other !== value) }));
    });
  }

  timeChips() {
    return TIMES.map(([key, label]) => {
      const value = this.view[key];
      // The choice of an age shows that of "Created from".
      if (!value || (key === "start_time" && isAge(value))) return null;
      const shown = INSTANT.test(value) ? formatInstant(Date.parse(value)) : `${value} ago`;
      return this.chip(`${label.toLowerCase()} ${shown}`, { [key]: "" });
    });
  }

  /**
   * @param {string} label
   * @param {Partial<ListView>} change what removes the filter
   */
  chip(label, change) {
    return el("span", { class: "dn-filter" }, label,
      el("button", { type: "button", "aria-label": `Remove ${label}`, title: "Remove",
        on: { click: () => this.onChange(change) } }, "×"));
  }

  /** Show or hide the panel; return whether it is shown. */
  async toggle() {
    this.panel.hidden = !this.panel.hidden;
    if (!this.panel.hidden && !this.isLoaded) {
      this.isLoaded = true;
      const choices = await this.loadChoices();
      for (const { key, list } of this.fields) {
        replace(list, (choices?.[key] ?? []).map((value) => el("option", { value })));
      }
      this.isLoaded = Boolean(choices);
    }
    return !this.panel.hidden;
  }
}
