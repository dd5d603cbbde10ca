// The fields of an action that needs values before it can be planned: a message, a delay, attributes,
// the period of a backfill.
import { append, button, el, focus, replace, uniqueId } from "./dom.js";
/** @import {Action, ActionOptions, Child} from "./types.js" */

/**
 * @typedef {object} Field
 * @property {keyof ActionOptions} key
 * @property {string} label
 * @property {"line" | "lines" | "check" | "format"} kind
 * @property {string} [placeholder]
 * @property {boolean} [isJson]
 * @property {boolean} [isRequired]
 */

/** @type {Partial<Record<Action, {title: string, fields: readonly Field[], initial: ActionOptions}>>} */
const FORMS = {
  send: {
    title: "Send a message",
    fields: [
      { key: "topic", label: "Topic", kind: "line", placeholder: "none" },
      { key: "message", label: "Message", kind: "lines", placeholder: '{"approved": true}',
        isJson: true },
      { key: "format", label: "as", kind: "format" },
    ],
    initial: { format: "json" },
  },
  set_delay: {
    title: "Set the delay",
    fields: [{ key: "delay", label: "Delay from now", kind: "line", placeholder: "10m",
      isRequired: true }],
    initial: {},
  },
  set_attributes: {
    title: "Set attributes",
    fields: [
      { key: "attributes", label: "Attributes", kind: "lines", placeholder: '{"tier": 2}',
        isJson: true },
      { key: "merge", label: "keep the other attributes", kind: "check" },
    ],
    initial: { merge: true },
  },
  backfill_schedule: {
    title: "Backfill",
    fields: [
      { key: "start", label: "From", kind: "line", placeholder: "1d, or 2026-11-24 00:00",
        isRequired: true },
      { key: "end", label: "to", kind: "line", placeholder: "now" },
    ],
    initial: {},
  },
};

/** @param {Action} action */
export function hasForm(action) {
  return action in FORMS;
}

/**
 * @param {Action} action
 * @param {object} options
 * @param {ActionOptions} options.values what was entered before
 * @param {readonly string[]} options.topics suggestions
 * @param {string} options.subject what the action is for, such as "3 workflows"
 * @param {(values: ActionOptions) => unknown} options.submit
 * @param {() => unknown} options.discard
 */
export function actionForm(action, { values, topics, subject, submit, discard }) {
  const form = FORMS[action];
  if (!form) return null;
  /** @type {Record<string, any>} */
  const entered = { ...form.initial, ...values };
  const problem = el("p", { class: "dn-note dn-warn", role: "alert", hidden: true });
  const fields = form.fields.map((field) => ({ field, control: input(field, entered, topics) }));
  const read = () => Object.fromEntries(fields.map(({ field, control }) =>
    [field.key, value(control)]));
  const plan = () => {
    const found = read();
    const reason = form.fields.map((field) => problemOf(field, found)).find(Boolean);
    problem.hidden = !reason;
    replace(problem, reason);
    if (!reason) submit(found);
  };
  const node = el("div", {},
    el("div", { class: "dn-plan-head" }, el("b", {}, form.title),
      el("span", { class: "dn-muted" }, subject)),
    el("div", { class: "dn-form" }, fields.map(({ field, control }) => labelled(field, control))),
    problem,
    el("div", { class: "dn-plan-foot" },
      button("Plan", "Show what would happen; nothing is written yet", plan,
        { class: "dn-button dn-confirm" }),
      button("Discard", "Close without changing anything", discard)));
  for (const { field, control } of fields) {
    control.addEventListener("keydown", (event) => {
      if (!(event instanceof KeyboardEvent) || event.key !== "Enter") return;
      // In a field of several lines, Enter begins a new one.
      if (field.kind !== "line" && !event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      plan();
    });
  }
  const empty = fields.find(({ control }) => !value(control)) ?? fields[0];
  return { node, focus: () => focus(empty?.control.querySelector("input") ?? empty?.control) };
}

/**
 * @param {Field} field
 * @param {Record<string, any>} entered
 * @param {readonly string[]} topics
 * @returns {HTMLElement}
 */
function input(field, entered, topics) {
  const current = entered[field.key] ?? "";
  if (field.kind === "check") return el("input", { type: "checkbox", checked: Boolean(current) });
  if (field.kind === "format") {
    const select = el("select", { class: "dn-select", "aria-label": "Format of the message" },
      el("option", { value: "json" }, "JSON"), el("option", { value: "text" }, "Text"));
    select.value = String(current);
    return select;
  }
  const common = { spellcheck: "false", autocomplete: "off", value: current,
    placeholder: field.placeholder };
  if (field.kind === "lines") return el("textarea", { rows: 3, ...common });
  const id = uniqueId();
  const line = el("input", { type: "text", list: id, ...common });
  if (field.key === "topic" && !current && topics[0]) line.value = topics[0];
  return append(el("span", { class: "dn-field" }), line,
    el("datalist", { id }, topics.map((topic) => el("option", { value: topic }))));
}

/**
 * @param {Field} field
 * @param {HTMLElement} control
 * @returns {Child}
 */
function labelled(field, control) {
  return field.kind === "check" ? el("label", { class: "dn-option" }, control, field.label)
    : el("label", { class: "dn-option" }, field.label, control);
}

/** @param {HTMLElement} control */
function value(control) {
  const field = control.matches("input, textarea, select") ? control
    : control.querySelector("input");
  if (field instanceof HTMLInputElement && field.type === "checkbox") return field.checked;
  if (field instanceof HTMLInputElement || field instanceof HTMLTextAreaElement
    || field instanceof HTMLSelectElement) return field.value;
  return "";
}

/**
 * Why a field cannot be used, if it cannot.
 * @param {Field} field
 * @param {Record<string, any>} found
 * @returns {string | null}
 */
function problemOf(field, found) {
  const text = String(found[field.key] ?? "");
  if (field.isRequired && !text.trim()) return `${field.label} is empty.`;
  if (!field.isJson || found.format === "text") return null;
  try {
    JSON.parse(text);
    return null;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const advice = found.format ? 'A string needs double quotes, as in "yes"; or choose Text.'
      : 'Write an object, such as {"tier": 2}.';
    return `${field.label} is not JSON: ${reason}. ${advice}`;
  }
}
