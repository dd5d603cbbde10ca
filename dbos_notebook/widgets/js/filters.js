// What the list is narrowed by: statuses with their counts, chosen values, times, texts.
import { el, onEntered, replace } from "./dom.js";
import { STATUSES, chip, count, exact } from "./format.js";

const FIELDS = [
  ["name", "Workflow", "a workflow function"],
  ["queue_name", "Queue", "a queue"],
  ["app_version", "Version", "an application version"],
  ["user", "User", "who started it"],
  ["executor_id", "Executor", "who ran it"],
  ["application_name", "Application", "an application"],
];
const TEXTS = [
  ["error", "Error says", "PaymentDeclined"],
  ["attributes", "Attributes", "tenant=t7, tier=2"],
];
const AGES = [
  ["", "any time"],
  ["15min", "last 15 minutes"],
  ["1h", "last hour"],
  ["24h", "last 24 hours"],
  ["7d", "last 7 days"],
  ["30d", "last 30 days"],
];

const MOMENT = /^\d{4}-.*T.*(Z|[+-]\d\d:\d\d)$/;

// A moment as a field of the page holds it: in the reader's own zone.
function local(value) {
  if (!MOMENT.test(value)) return "";
  const at = new Date(value);
  return new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

// The row of statuses: each a switch.
export function statusBar(view, change) {
  const bar = el("div", { class: "dn-statuses", role: "group", "aria-label": "Status" });
  const update = (counts) => {
    replace(bar, Object.keys(STATUSES).map((status) => {
      const on = (view.status ?? []).includes(status);
      const number = counts?.[status];
      return el("button", {
        type: "button",
        class: "dn-status",
        "aria-pressed": String(on),
        "data-none": counts && !number && !on,
        on: {
          click: () => {
            const others = (view.status ?? []).filter((one) => one !== status);
            change({ status: on ? others : [...others, status] });
          },
        },
      }, chip(status), counts && el("b", {}, count(number ?? 0)));
    }));
  };
  update(null);
  return { node: bar, update };
}

// The panel of filters, and the chips of those that are set.
export function filterPanel(start, view, change, loadChoices, name) {
  const panel = el("div", { class: "dn-panel", hidden: true, role: "group", "aria-label": "Filters" });
  const chips = el("div", { class: "dn-chips" });
  let loaded = false;

  const choose = (key, label, hint) => {
    const id = `${name}-${key}`;
    const list = el("datalist", { id });
    const input = el("input", { type: "text", list: id, placeholder: hint, autocomplete: "off",
      spellcheck: "false" });
    onEntered(input, () => {
      const value = input.value.trim();
      input.value = "";
      if (value) change({ [key]: [...new Set([...(view[key] ?? []), value])] });
    });
    return { key, list, node: el("label", {}, el("span", {}, label), input, list) };
  };
  const fields = FIELDS.map((field) => choose(...field));
  const texts = TEXTS.filter(([key]) => key !== "attributes" || start.has_attributes).map(
    ([key, label, hint]) => {
      const input = el("input", { type: "text", placeholder: hint, spellcheck: "false" });
      onEntered(input, () => {
        if (input.value.trim() !== (view[key] ?? "")) change({ [key]: input.value.trim() });
      });
      return { key, input, node: el("label", {}, el("span", {}, label), input) };
    },
  );
  const moments = [["start_time", "Created from"], ["end_time", "Created until"]].map(
    ([key, label]) => {
      const input = el("input", { type: "datetime-local", step: "1" });
      input.addEventListener("change", () => {
        // With its zone: the kernel may live in another.
        change({ [key]: input.value ? new Date(input.value).toISOString() : "" });
      });
      return { key, input, node: el("label", {}, el("span", {}, label), input) };
    },
  );
  replace(panel, [...fields, ...texts, ...moments].map((field) => field.node));

  const ages = el("select", { "aria-label": "Created", class: "dn-select" },
    AGES.map(([value, label]) => el("option", { value }, label)));
  ages.addEventListener("change", () => change({ start_time: ages.value }));

  const removable = (key, shown, rest) => el("span", { class: "dn-filter" }, shown,
    el("button", { type: "button", "aria-label": `Remove ${shown}`, title: "Remove",
      on: { click: () => change({ [key]: rest }) } }, "×"));

  const update = () => {
    const set = [];
    for (const [key, label] of FIELDS) {
      for (const value of view[key] ?? []) {
        const rest = view[key].filter((one) => one !== value);
        set.push(removable(key, `${label.toLowerCase()} ${value}`, rest));
      }
    }
    for (const [key, label] of TEXTS) {
      if (view[key]) set.push(removable(key, `${label.toLowerCase()} ${view[key]}`, ""));
    }
    for (const [key, word] of [["start_time", "from"], ["end_time", "until"]]) {
      const value = view[key];
      if (value && !AGES.some(([age]) => age === value)) {
        const said = MOMENT.test(value) ? exact(Date.parse(value)) : value;
        set.push(removable(key, `${word} ${said}`, ""));
      }
    }
    for (const fixed of start.fixed) set.push(el("span", { class: "dn-filter" }, fixed));
    replace(chips, set);
    for (const { key, input } of texts) input.value = view[key] ?? "";
    for (const { key, input } of moments) {
      const value = local(view[key]);
      // What is being typed into stays as it is; a browser leaves out seconds that are none.
      if (input.value.padEnd(value.length, ":00") !== value) input.value = value;
    }
    const age = view.start_time ?? "";
    ages.querySelector("[data-other]")?.remove();
    if (!AGES.some(([value]) => value === age)) {
      ages.append(el("option", { value: age, "data-other": true }, "other"));
    }
    ages.value = age;
  };
  const toggle = async () => {
    panel.hidden = !panel.hidden;
    if (panel.hidden || loaded) return !panel.hidden;
    loaded = true;
    const choices = await loadChoices();
    for (const { key, list } of fields) {
      replace(list, (choices?.[key] ?? []).map((value) => el("option", { value })));
    }
    loaded = Boolean(choices);
    return true;
  };
  update();
  return { panel, chips, ages, update, toggle };
}
