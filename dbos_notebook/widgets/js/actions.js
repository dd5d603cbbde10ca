// Control of workflows and schedules: buttons that are enabled where DBOS would act, the plan of a
// click, its confirmation, and the receipt, which is followed until the work has ended.
import { actionForm, hasForm } from "./action_forms.js";
import { button, copyButton, el, focus, focusedElement, linkButton, onEntered, replace, uniqueId } from "./dom.js";
import { formatCount, leafName, pluralize, shortenId } from "./format.js";
import { statusChip, statusIcon } from "./status.js";
import { OUTCOMES } from "./status_data.js";
/** @import {Action, ActionOptions, Answer, Ask, Child, Plan, Receipt, WorkflowAction} from "./types.js" */

/** @typedef {Answer<"possible">["possible"]} Possible */
/** @typedef {{key: keyof ActionOptions, label: string, values?: "steps" | "versions" | "queues"}} Option */
/**
 * The first line of a plan and its fields, which stay when the plan is drawn again.
 * @typedef {object} PlanHead
 * @property {string} key the click that they belong to
 * @property {HTMLElement} node
 * @property {HTMLElement} summary
 * @property {Map<keyof ActionOptions, HTMLInputElement>} fields those with text
 * @property {HTMLElement} body what is drawn again
 */

/** When the work of a receipt has ended, these stand first. */
const FAILURES = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"];
/** @type {readonly WorkflowAction[]} */
const NAMES = ["cancel", "resume", "fork", "repair"];
/**
 * Those that are shown after a click on "More".
 * @type {readonly WorkflowAction[]}
 */
const MORE = ["set_delay", "set_attributes", "delete"];
/**
 * The label of a button, the verb of the confirmation, what the plan says of what would be changed.
 * @type {Record<Action, {label: string, verb?: string, noun?: string, title?: string, planned: string}>}
 */
const ACTIONS = {
  cancel: {
    label: "Cancel",
    title: "Remove from the queue, or stop at the next step",
    planned: "will be cancelled",
  },
  resume: {
    label: "Resume",
    title: "Continue after the last recorded step",
    planned: "will be resumed",
  },
  fork: {
    label: "Fork",
    title: "Start a new run that copies the steps before a chosen one and runs from there",
    planned: "will be forked",
  },
  repair: {
    label: "Repair",
    title: "Fork together with the failed children that caused the failure",
    planned: "will be repaired",
  },
  send: {
    label: "Send message",
    verb: "Send to",
    title: "Send a message, such as the answer that a run waits for",
    planned: "will get the message",
  },
  set_delay: {
    label: "Set delay",
    verb: "Delay",
    title: "Change the time before which it does not start",
    planned: "will be delayed",
  },
  set_attributes: {
    label: "Set attributes",
    verb: "Change",
    title: "Replace its attributes, or merge into them",
    planned: "will be changed",
  },
  delete: {
    label: "Delete",
    title: "Delete permanently, with steps, events, messages and streams",
    planned: "will be deleted",
  },
  pause_schedule: { label: "Pause", noun: "schedule", planned: "will be paused" },
  resume_schedule: { label: "Resume", noun: "schedule", planned: "will be resumed" },
  trigger_schedule: { label: "Trigger", noun: "schedule", planned: "will be triggered" },
  backfill_schedule: { label: "Backfill", verb: "Enqueue", noun: "run", planned: "will be enqueued" },
  delete_schedule: { label: "Delete", noun: "schedule", planned: "will be deleted" },
};
const STEPS = ["failed", "first", "last"];
const PLACEHOLDERS = { steps: "failed", versions: "latest", queues: "default" };
/** @type {Option} */
const QUEUE = { key: "queue_name", label: "queue", values: "queues" };
/** @type {Option} */
const VERSION = { key: "application_version", label: "version", values: "versions" };
/** @type {Partial<Record<Action, readonly Option[]>>} */
const OPTIONS = {
  cancel: [{ key: "cancel_children", label: "include children" }],
  resume: [QUEUE],
  fork: [{ key: "start_step", label: "from step", values: "steps" }, VERSION, QUEUE],
  repair: [VERSION, QUEUE],
  delete: [{ key: "delete_children", label: "include children" }],
};
const MOST_CODE = 300;
/** A second press confirms a deletion, but not the second click of a double click. */
const SECOND_PRESS_MS = 700;
const FOLLOW_MS = 1000;
const MOST_FOLLOW_MS = 10_000;
/** How often in a row a receipt may be out of the page before it is not followed any more. */
const MOST_MISSED = 4;

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
    /** @type {Map<string, ActionOptions>} what was entered in forms, by action and workflows */
    this.drafts = new Map();
    this.key = "";
    this.turn = 0;
    /** @type {HTMLButtonElement | null} */
    this.confirm = null;
    /** Whether the plan that is shown can be confirmed, unless the fields hold something else by now. */
    this.canConfirm = false;
    /** @type {PlanHead | null} */
    this.head = null;
    /** @type {Answer<"targets"> | null} */
    this.targets = null;
    /** @type {Element | null} */
    this.focusBefore = null;
    /** @type {Possible | null} */
    this.possible = null;
    this.isMoreOpen = false;
    this.bar = el("span", { class: "dn-actions", role: "group", "aria-label": "Actions" });
    /** Why the button that has the focus does nothing: a keyboard shows no titles. */
    this.reason = el("span", { class: "dn-note" });
    // Escape also in a field: it closes the plan or the form, and does not leave the view.
    this.panel = el("div", { class: "dn-plan", hidden: true, role: "group", "aria-live": "polite",
      on: { keydown: (event) => {
        if (event.key !== "Escape" || !this.dismiss()) return;
        event.preventDefault();
        event.stopPropagation();
      } } });
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
    this.possible = possible;
    const can = (/** @type {WorkflowAction} */ name) => Boolean(possible?.[name].count);
    const more = MORE.filter(can);
    replace(this.reason);
    replace(this.bar, NAMES.map((name) => this.button(name)),
      can("send") && this.button("send"),
      more.length > 0 && button(this.isMoreOpen ? "Less" : "More",
        "Further actions: delay, attributes, deletion", () => {
          this.isMoreOpen = !this.isMoreOpen;
          this.showButtons(this.possible);
        }, { "aria-expanded": String(this.isMoreOpen) }),
      this.isMoreOpen && more.map((name) => this.button(name)), this.reason);
  }

  /** @param {WorkflowAction} name */
  button(name) {
    const { label, title = "" } = ACTIONS[name];
    const found = this.possible?.[name];
    const number = this.ids.length > 1 && found?.count ? ` ${formatCount(found.count)}` : "";
    const reason = found?.count ? "" : this.forbidden ?? found?.why;
    const waits = found?.waits ? `${pluralize(found.waits, "workflow appears", "workflows appear")} `
      + "to wait for a message" : "";
    const description = reason || waits || title;
    const text = `${label}${number}`;
    if (found?.count) {
      return button(text, description, () => this.begin(name),
        { class: waits ? "dn-button dn-awaited" : "dn-button" });
    }
    // Not disabled, so that the focus reaches it and its reason.
    const show = () => replace(this.reason, reason);
    return button(text, description, show,
      { "aria-disabled": "true", on: { click: show, focus: show, blur: () => replace(this.reason) } });
  }

  /**
   * @param {Action} action
   * @param {ActionOptions} [options]
   * @param {readonly string[]} [ids] other workflows than those of the buttons
   */
  begin(action, options = {}, ids = this.ids) {
    this.planIds = ids;
    this.action = action;
    this.options = { ...this.drafts.get(`${action} ${ids.join()}`), ...options };
    this.focusBefore = focusedElement(this.panel);
    // A key of this click alone, so that a plan is applied once however often it is sent.
    const random = crypto.getRandomValues(new Uint8Array(6));
    this.key = `click-${[...random].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
    return hasForm(action) ? this.showForm() : this.showPlan();
  }

  showForm() {
    this.turn += 1;
    this.confirm = null;
    const { action, planIds } = this;
    const form = actionForm(action, {
      values: this.options,
      topics: this.possible?.send.topics ?? [],
      subject: action === "backfill_schedule" ? planIds[0] ?? ""
        : pluralize(planIds.length, "workflow"),
      submit: (values) => {
        this.options = values;
        this.drafts.set(`${action} ${planIds.join()}`, values);
        return this.showPlan();
      },
      discard: () => this.close(),
    });
    if (!form) return;
    replace(this.panel, form.node);
    this.panel.setAttribute("aria-label", ACTIONS[action].label);
    this.show();
    form.focus();
  }

  /** Close the plan, form or receipt, or the further actions; return whether there was one. */
  dismiss() {
    if (!this.panel.hidden) this.close();
    else if (this.isMoreOpen && this.bar.isConnected && this.ids.length) {
      this.isMoreOpen = false;
      this.showButtons(this.possible);
    } else return false;
    return true;
  }

  show() {
    this.panel.hidden = false;
    this.panel.scrollIntoView({ block: "nearest" });
  }

  async showPlan() {
    // Only the plan that is shown can be confirmed: neither the previous one nor one in flight.
    this.allowConfirm(false);
    const turn = this.turn += 1;
    const { action, planIds, options, key } = this;
    const plan = await this.ask("plan", { action, ids: [...planIds], options, key });
    if (!plan) return;
    const choices = OPTIONS[action] ?? [];
    if (choices.some(({ values }) => values)) this.targets ??= await this.ask("targets", {});
    if (turn !== this.turn) return;
    const { label, verb = label, noun = "workflow" } = ACTIONS[action];
    const ready = plan.problem ? 0 : plan.counts.ready ?? 0;
    const question = `${verb} ${pluralize(ready, noun)}`;
    const confirm = button(question, null, () => this.press(confirm, plan, question),
      { class: `dn-button dn-confirm ${isDeletion(action) ? "dn-final" : ""}`, disabled: true });
    const title = `Plan: ${label.toLowerCase()}`;
    const isDrawnAgain = this.head?.key === key && this.panel.contains(this.head.node);
    const head = isDrawnAgain && this.head ? this.head : this.makeHead(title);
    this.confirm = confirm;
    this.allowConfirm(ready > 0);
    replace(head.summary, this.summary(plan.counts));
    replace(head.body,
      plan.kinds.length > 0 && plan.rows.length > 1 && el("p", { class: "dn-note" },
        plan.kinds.join(", ")),
      plan.problem && el("p", { class: "dn-note dn-warn" }, plan.problem),
      plan.notes.map(noteLine),
      plan.unlikely > 0 && el("p", { class: "dn-note dn-warn" },
        `${formatCount(plan.unlikely)} would wait: no live executor appears able to run `
          + `${plan.unlikely === 1 ? "it" : "them"}.`),
      plan.will_run && el("p", { class: "dn-note" }, `Will it run? ${plan.will_run}`),
      this.planTable(plan),
      el("div", { class: "dn-plan-foot" }, confirm,
        // Not "Cancel", which is the name of an action.
        button("Discard", "Close the plan without changing anything", () => this.close()),
        el("code", { class: "dn-muted" }, plan.code.slice(0, MOST_CODE)),
        copyButton("Copy code", "Copy the Python code of this plan", () => plan.code,
          { class: "dn-muted" })));
    this.panel.setAttribute("aria-label", title);
    this.show();
    // Who is in a field, or has gone on elsewhere, stays there.
    const focused = focusedElement(this.panel);
    const isNowhere = !focused || focused === document.body;
    if (isNowhere || (!isDrawnAgain && !this.hasFocus())) this.focusRows();
  }

  /**
   * Begin the drawing of a plan. Its fields are made once: while a plan is on its way, the next value
   * may be typed.
   * @param {string} title
   */
  makeHead(title) {
    const { action, key } = this;
    const fields = new Map();
    const summary = el("span");
    const body = el("div");
    const node = el("div", { class: "dn-plan-head" }, el("b", {}, title), summary,
      el("span", { class: "dn-space" }),
      (OPTIONS[action] ?? []).map((option) => this.optionInput(option, fields)),
      hasForm(action) && button("Change", "Change what was entered", () => this.showForm()));
    this.head = { key, node, summary, fields, body };
    replace(this.panel, node, body);
    return this.head;
  }

  /** Whether the fields hold what the plan was made for. */
  fitsFields() {
    return [...this.head?.fields ?? []].every(([key, input]) =>
      input.value.trim() === String(this.options[key] ?? ""));
  }

  /** @param {boolean} can whether the plan that is shown can be confirmed */
  allowConfirm(can) {
    this.canConfirm = can;
    this.showConfirm();
  }

  showConfirm() {
    if (!this.confirm) return;
    const fits = this.fitsFields();
    this.confirm.disabled = !this.canConfirm || !fits;
    this.confirm.title = this.canConfirm && !fits
      ? "The plan does not have what was typed: press Enter in the field" : "";
  }

  /**
   * Confirm a plan: what cannot be undone needs a second press.
   * @param {HTMLButtonElement} confirm
   * @param {Plan} plan
   * @param {string} question
   */
  press(confirm, plan, question) {
    if (!plan.confirm) {
      this.apply(confirm, plan.key);
      return;
    }
    const second = button(`Press again: ${question} permanently`, null,
      () => this.apply(second, plan.key, true),
      { class: "dn-button dn-confirm dn-final", disabled: true });
    confirm.replaceWith(second);
    this.confirm = second;
    this.allowConfirm(false);
    const { turn } = this;
    setTimeout(() => {
      if (this.confirm !== second || !second.isConnected || turn !== this.turn) return;
      this.allowConfirm(true);
      focus(second);
    }, SECOND_PRESS_MS);
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

  /**
   * @param {Option} option
   * @param {PlanHead["fields"]} fields to which the field is added
   */
  optionInput({ key, label, values }, fields) {
    const value = this.options[key] ?? "";
    if (!values) {
      const box = el("input", { type: "checkbox", checked: Boolean(value) });
      box.addEventListener("change", () => this.setOption(key, box.checked));
      return el("label", { class: "dn-option" }, box, label);
    }
    const id = `${this.id}-${key}`;
    const suggestions = values === "steps" ? STEPS : this.targets?.[values] ?? [];
    const input = el("input", { type: "text", list: id, spellcheck: "false", autocomplete: "off",
      value, placeholder: PLACEHOLDERS[values], on: { input: () => this.showConfirm() } });
    fields.set(key, input);
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
      el("td", {}, row.name && el("b", { title: row.name }, leafName(row.name)), " ",
        shortId(row.workflow_id)),
      el("td", { "data-label": "now" }, row.status),
      el("td", { class: "dn-effect", "data-label": "Will it run?" }, row.will_run),
      el("td", { class: "dn-effect", "data-label": "Effect:" }, row.effect)));
    const hasEstimate = plan.rows.some((row) => row.will_run);
    return table(["", "workflow", "status now", hasEstimate ? "will it run?" : "", "effect"], rows,
      plan.left_out);
  }

  /** @param {string} outcome */
  outcome(outcome) {
    const label = this.describe(outcome);
    const status = outcome === "ready" && isDeletion(this.action) ? "CANCELLED"
      : OUTCOMES[outcome]?.status ?? "";
    return [statusIcon(status, label), ` ${label}`];
  }

  /**
   * @param {HTMLButtonElement} confirm
   * @param {string} key
   * @param {boolean} [isFinal] confirmed twice
   */
  async apply(confirm, key, isFinal = false) {
    // What is being applied is settled: neither an option nor a plan in flight may replace it.
    this.turn += 1;
    this.canConfirm = false;
    for (const input of this.panel.querySelectorAll("input")) input.disabled = true;
    confirm.disabled = true;
    confirm.textContent = "…";
    const receipt = await this.ask("apply", isFinal ? { key, confirm: true } : { key });
    this.subject = null;
    if (receipt) this.showReceipt(receipt);
    else this.close();
    this.onDone(receipt);
  }

  /** @param {Receipt} receipt */
  showReceipt(receipt) {
    const title = `Receipt: ${ACTIONS[receipt.action].label.toLowerCase()}`;
    /** @type {Map<string, HTMLElement>} where the status of a workflow is shown */
    const cells = new Map();
    // Where there are new runs, their statuses count: the originals keep theirs.
    const hasNew = receipt.rows.some((row) => row.new_workflow_id);
    const rows = receipt.rows.map((row) => {
      const { status_before: before, status_after: after, new_workflow_id: id } = row;
      const isGone = isDeletion(receipt.action) && row.outcome === "done";
      const now = el("span", {}, isGone ? "deleted"
        : !hasNew && (receipt.follows && after ? statusChip(after) : after));
      cells.set(id ?? row.workflow_id, now);
      return el("tr", {},
        el("td", {}, this.outcome(row.outcome)),
        el("td", {}, shortId(row.workflow_id)),
        hasNew && el("td", {}, id && this.newRun(id)),
        el("td", {}, !hasNew && before !== after && [before, (after || isGone) && " → "], now),
        el("td", { class: "dn-effect" }, row.detail));
    });
    const progress = el("p", { class: "dn-note dn-progress", role: "status", hidden: true });
    const estimates = el("div", {},
      receipt.notes.map(noteLine));
    replace(this.panel,
      el("div", { class: "dn-plan-head" }, el("b", {}, title), this.summary(receipt.counts)),
      progress,
      estimates,
      table(["outcome", "workflow", hasNew && "new run", hasNew ? "its status" : "status",
        "as planned"], rows, receipt.left_out),
      // No button stands where the confirmation was: a second click must not press anything.
      el("div", { class: "dn-plan-foot" },
        el("span", { class: "dn-note" }, "In Python, this receipt is the view's attribute .receipt"),
        el("span", { class: "dn-space" }), button("Close", null, () => this.close())));
    this.panel.setAttribute("aria-label", title);
    this.focusRows();
    if (receipt.follows) this.follow(receipt.key, progress, cells, estimates);
  }

  /**
   * Show how far the workflows of a receipt are, until they have ended or the receipt is closed.
   * @param {string} key
   * @param {HTMLElement} line
   * @param {Map<string, HTMLElement>} cells
   * @param {HTMLElement} estimates whether the work will run
   */
  async follow(key, line, cells, estimates) {
    let wait = FOLLOW_MS;
    let missed = 0;
    let shown = "";
    while (missed < MOST_MISSED) {
      if (!line.isConnected) {
        // A view that shows the new run takes the receipt along.
        missed += 1;
      } else if (document.visibilityState === "visible") {
        missed = 0;
        const progress = await this.ask("progress", { key });
        if (!progress) return;
        wait = progress.text === shown ? Math.min(wait * 1.5, MOST_FOLLOW_MS) : FOLLOW_MS;
        shown = progress.text;
        line.hidden = false;
        replace(line, progress.ended ? "Ended: " : "Now: ", el("b", {}, progress.text));
        for (const [id, status] of Object.entries(progress.statuses)) {
          const cell = cells.get(id);
          if (cell) replace(cell, statusChip(status));
        }
        if (progress.ended) {
          estimates.remove();
          const failed = [...cells].filter(([id]) => FAILURES.includes(progress.statuses[id] ?? ""))
            .map(([, cell]) => cell.closest("tr"));
          failed[0]?.parentElement?.prepend(...failed.filter((row) => row !== null));
          return;
        }
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  /** @param {string} id */
  newRun(id) {
    const { openWorkflow } = this;
    if (!openWorkflow) return shortId(id);
    return linkButton(shortenId(id), `Show the new run ${id}`, () => openWorkflow(id),
      { class: "dn-link dn-truncated", "aria-label": `Show the new run ${id}` });
  }

  hasFocus() {
    return this.panel.contains(focusedElement(this.panel));
  }

  /** Move focus to the rows, so that a repeated Enter neither confirms nor closes. */
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
      : this.bar.isConnected ? this.bar.querySelector("button:not([aria-disabled])") : this.panel.closest("[tabindex]"));
  }
}

/** @param {Action} action */
function isDeletion(action) {
  return action === "delete" || action === "delete_schedule";
}

/** @param {string} note */
function noteLine(note) {
  return el("p", { class: note.startsWith("⚠") ? "dn-note dn-warn" : "dn-note" }, note);
}

/**
 * @param {readonly (string | false)[]} headings
 * @param {Child} rows
 * @param {number} leftOut
 */
function table(headings, rows, leftOut) {
  return el("div", { class: "dn-plan-rows", tabindex: "0" },
    el("table", {},
      el("thead", {}, el("tr", {}, headings.filter((heading) => heading !== false)
        .map((heading) => el("th", { scope: "col" }, heading)))),
      el("tbody", {}, rows)),
    leftOut > 0 && el("p", { class: "dn-note" }, `… and ${formatCount(leftOut)} more`));
}

/** @param {string} id */
function shortId(id) {
  return el("code", { title: id }, shortenId(id));
}
