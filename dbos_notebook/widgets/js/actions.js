// Cancel, resume, fork and repair: buttons that are enabled where DBOS would act, the plan of a
// click, its confirmation, and the receipt.
import { button, copyButton, el, focus, focusedElement, linkButton, onEntered, replace, uniqueId } from "./dom.js";
import { formatCount, pluralize } from "./format.js";
import { statusIcon } from "./status.js";
import { OUTCOMES } from "./status_data.js";
/** @import {Action, ActionOptions, Answer, Ask, Child, Plan, Receipt} from "./types.js" */

/** @typedef {Answer<"possible">["possible"]} Possible */
/** @typedef {{key: keyof ActionOptions, label: string, values?: "steps" | "versions" | "queues"}} Option */

/** @type {readonly Action[]} */
const NAMES = ["cancel", "resume", "fork", "repair"];
/** @type {Record<Action, {title: string, planned: string}>} */
const ACTIONS = {
  cancel: {
    title: "Remove from the queue, or stop at the next step",
    planned: "will be cancelled",
  },
  resume: {
    title: "Continue after the last recorded step",
    planned: "will be resumed",
  },
  fork: {
    title: "Start a new run that copies the steps before a chosen one and runs from there",
    planned: "will be forked",
  },
  repair: {
    title: "Fork together with the failed children that caused the failure",
    planned: "will be repaired",
  },
};
const STEPS = ["failed", "first", "last"];
const PLACEHOLDERS = { steps: "failed", versions: "latest", queues: "default" };
/** @type {Option} */
const QUEUE = { key: "queue_name", label: "queue", values: "queues" };
/** @type {Option} */
const VERSION = { key: "application_version", label: "version", values: "versions" };
/** @type {Record<Action, readonly Option[]>} */
const OPTIONS = {
  cancel: [{ key: "cancel_children", label: "include children" }],
  resume: [QUEUE],
  fork: [{ key: "start_step", label: "from step", values: "steps" }, VERSION, QUEUE],
  repair: [VERSION, QUEUE],
};
const MOST_CODE = 300;

export class Actions {
  /**
   * @param {string | null} forbidden why nothing can be controlled
   * @param {Ask} ask
   * @param {(receipt: Receipt | null) => unknown} onDone called after something was written; null: it
   *   failed
   * @param {(id: string) => unknown} [openWorkflow] where a view can show another workflow
   */
  constructor(forbidden, ask, onDone, openWorkflow) {
    this.id = uniqueId();
    /** @type {Ask} */
    // In lanes of its own: buttons elsewhere in the view must not replace its questions.
    this.ask = (kind, question) => ask(kind, question, `${kind} ${this.id}`);
    this.onDone = onDone;
    this.openWorkflow = openWorkflow;
    this.forbidden = forbidden;
    /** @type {readonly string[]} */
    this.ids = [];
    /**
     * The workflows and the state that the buttons show; null forces a refresh.
     * @type {string | null}
     */
    this.subject = null;
    /**
     * The workflows of the plan that is shown: those of the buttons, or the one of a node.
     * @type {readonly string[]}
     */
    this.planIds = [];
    /** @type {Action} */
    this.action = "cancel";
    /** @type {ActionOptions} */
    this.options = {};
    this.key = "";
    this.turn = 0;
    /** @type {HTMLButtonElement | null} */
    this.confirm = null;
    /** @type {Answer<"targets"> | null} */
    this.targets = null;
    /** @type {Element | null} */
    this.focusBefore = null;
    this.bar = el("span", { class: "dn-actions", role: "group", "aria-label": "Actions" });
    this.panel = el("div", { class: "dn-plan", hidden: true, role: "group", "aria-live": "polite" });
    this.showButtons(null);
  }

  /**
   * Set the workflows that the buttons act on, and enable the buttons that would do something.
   * @param {readonly string[]} ids
   * @param {string} [state] what is shown of them: where it changes, the buttons may change too
   */
  async setWorkflows(ids, state = "") {
    const subject = ids.join("\n") + state;
    if (subject === this.subject) return;
    this.subject = subject;
    this.ids = ids;
    if (!ids.length) {
      this.close();
      this.showButtons(null);
      return;
    }
    if (this.forbidden) return;
    const answer = await this.ask("possible", { ids: [...ids] });
    if (answer) this.showButtons(answer.possible);
    else if (this.subject === subject) this.subject = null;
  }

  /** @param {Possible | null} possible */
  showButtons(possible) {
    replace(this.bar, NAMES.map((name) => {
      const found = possible?.[name];
      const number = this.ids.length > 1 && found?.count ? ` ${formatCount(found.count)}` : "";
      const reason = found?.count ? "" : this.forbidden ?? found?.why;
      return button(`${capitalize(name)}${number}`, reason || ACTIONS[name].title,
        () => this.begin(name), { disabled: !found?.count });
    }));
  }

  /**
   * @param {Action} action
   * @param {ActionOptions} [options]
   * @param {readonly string[]} [ids] other workflows than those of the buttons
   */
  begin(action, options = {}, ids = this.ids) {
    this.planIds = ids;
    this.action = action;
    this.options = options;
    this.focusBefore = focusedElement(this.panel);
    // A key of this click alone, so that a plan is applied once however often it is sent.
    const random = crypto.getRandomValues(new Uint8Array(6));
    this.key = `click-${[...random].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
    return this.showPlan();
  }

  async showPlan() {
    // Only the plan that is shown can be confirmed: neither the previous one nor one in flight.
    if (this.confirm) this.confirm.disabled = true;
    const turn = this.turn += 1;
    const { action, planIds, options, key } = this;
    const plan = await this.ask("plan", { action, ids: [...planIds], options, key });
    if (!plan) return;
    this.targets ??= await this.ask("targets", {});
    if (turn !== this.turn) return;
    const ready = plan.counts.ready ?? 0;
    const confirm = button(`${capitalize(action)} ${pluralize(ready, "workflow")}`, null,
      () => this.apply(confirm, plan.key), { class: "dn-button dn-confirm", disabled: !ready });
    this.confirm = confirm;
    replace(this.panel,
      el("div", { class: "dn-plan-head" },
        el("b", {}, `Plan: ${action}`), this.summary(plan.counts),
        el("span", { class: "dn-space" }), OPTIONS[action].map((option) => this.optionInput(option))),
      plan.unlikely > 0 && el("p", { class: "dn-note dn-warn" },
        `${formatCount(plan.unlikely)} would stay enqueued: no live executor appears able to run them.`),
      this.planTable(plan),
      el("div", { class: "dn-plan-foot" }, confirm,
        // Not "Cancel", which is the name of an action.
        button("Discard", "Close the plan without changing anything", () => this.close()),
        el("code", { class: "dn-muted" }, plan.code.slice(0, MOST_CODE)),
        copyButton("Copy code", "Copy the Python code of this plan", () => plan.code,
          { class: "dn-muted" })));
    this.panel.setAttribute("aria-label", `Plan: ${action}`);
    this.panel.hidden = false;
    this.panel.scrollIntoView({ block: "nearest" });
    if (!this.hasFocus()) this.focusRows();
  }

  /** @param {string} outcome */
  describe(outcome) {
    return outcome === "ready" ? ACTIONS[this.action].planned : OUTCOMES[outcome]?.label ?? outcome;
  }

  /** @param {Record<string, number>} counts */
  summary(counts) {
    return el("span", { class: "dn-muted" }, Object.entries(counts).filter(([, number]) => number)
      .map(([outcome, number]) => `${formatCount(number)} ${this.describe(outcome)}`).join(", "));
  }

  /** @param {Option} option */
  optionInput({ key, label, values }) {
    const value = this.options[key] ?? "";
    if (!values) {
      const box = el("input", { type: "checkbox", checked: Boolean(value) });
      box.addEventListener("change", () => this.setOption(key, box.checked));
      return el("label", { class: "dn-option" }, box, label);
    }
    const id = `${this.id}-${key}`;
    const suggestions = values === "steps" ? STEPS : this.targets?.[values] ?? [];
    const input = el("input", { type: "text", list: id, spellcheck: "false", autocomplete: "off",
      value, placeholder: PLACEHOLDERS[values] });
    onEntered(input, () => {
      const entered = input.value.trim();
      if (entered !== (this.options[key] ?? "")) this.setOption(key, entered);
    });
    return el("label", { class: "dn-option" }, label, input,
      el("datalist", { id }, suggestions.map((suggestion) => el("option", { value: suggestion }))));
  }

  /**
   * @param {keyof ActionOptions} key
   * @param {string | boolean} value
   */
  setOption(key, value) {
    this.options = { ...this.options, [key]: value };
    return this.showPlan();
  }

  /** @param {Plan} plan */
  planTable(plan) {
    const rows = plan.rows.map((row) => el("tr", {},
      el("td", {}, this.outcome(row.verdict)),
      el("td", {}, row.name && el("b", {}, row.name), " ", el("code", {}, row.workflow_id)),
      el("td", {}, row.status),
      el("td", { class: "dn-effect" }, row.effect),
      el("td", { class: "dn-effect" }, row.will_run)));
    return table(["", "workflow", "current status", "effect", "will it run?"], rows, plan.left_out);
  }

  /** @param {string} outcome */
  outcome(outcome) {
    const label = this.describe(outcome);
    return [statusIcon(OUTCOMES[outcome]?.status ?? "", label), ` ${label}`];
  }

  /**
   * @param {HTMLButtonElement} confirm
   * @param {string} key
   */
  async apply(confirm, key) {
    // What is being applied is settled: neither an option nor a plan in flight may replace it.
    this.turn += 1;
    for (const input of this.panel.querySelectorAll("input")) input.disabled = true;
    confirm.disabled = true;
    confirm.textContent = "…";
    const receipt = await this.ask("apply", { key });
    this.subject = null;
    if (receipt) this.showReceipt(receipt);
    else this.close();
    this.onDone(receipt);
  }

  /** @param {Receipt} receipt */
  showReceipt(receipt) {
    const rows = receipt.rows.map((row) => el("tr", {},
      el("td", {}, this.outcome(row.outcome)),
      el("td", {}, el("code", {}, row.workflow_id)),
      el("td", {}, row.status_before, row.status_after !== row.status_before
        && ` → ${row.status_after ?? ""}`),
      el("td", {}, row.new_workflow_id && this.newRun(row.new_workflow_id)),
      el("td", { class: "dn-effect" }, row.detail)));
    replace(this.panel,
      el("div", { class: "dn-plan-head" }, el("b", {}, `Receipt: ${receipt.action}`),
        this.summary(receipt.counts)),
      receipt.notes.map((note) => el("p", { class: "dn-note" }, note)),
      table(["outcome", "workflow", "status", "new run", ""], rows, receipt.left_out),
      // No button stands where the confirmation was: a second click must not press anything.
      el("div", { class: "dn-plan-foot" },
        el("span", { class: "dn-note" }, "Also available as widget.receipt"),
        el("span", { class: "dn-space" }), button("Close", null, () => this.close())));
    this.panel.setAttribute("aria-label", `Receipt: ${receipt.action}`);
    this.focusRows();
  }

  /** @param {string} id */
  newRun(id) {
    const { openWorkflow } = this;
    if (!openWorkflow) return el("code", { title: id }, id);
    return linkButton(id, `Show the new run ${id}`, () => openWorkflow(id),
      { class: "dn-link dn-truncated" });
  }

  hasFocus() {
    return this.panel.contains(focusedElement(this.panel));
  }

  /** Focus what is to be read, so that a repeated Enter neither confirms nor closes. */
  focusRows() {
    focus(this.panel.querySelector(".dn-plan-rows"));
  }

  close() {
    const hadFocus = this.hasFocus();
    this.turn += 1;
    this.panel.hidden = true;
    replace(this.panel);
    if (!hadFocus) return;
    focus(this.focusBefore?.isConnected ? this.focusBefore
      : this.bar.querySelector("button:enabled"));
  }
}

/**
 * @param {readonly string[]} headings
 * @param {Child} rows
 * @param {number} leftOut
 */
function table(headings, rows, leftOut) {
  return el("div", { class: "dn-plan-rows", tabindex: "0" },
    el("table", {},
      el("thead", {}, el("tr", {}, headings.map((heading) => el("th", { scope: "col" }, heading)))),
      el("tbody", {}, rows)),
    leftOut > 0 && el("p", { class: "dn-note" }, `… and ${formatCount(leftOut)} more`));
}

/** @param {string} word */
function capitalize(word) {
  return `${word[0]?.toUpperCase()}${word.slice(1)}`;
}
