// The details of a workflow: facts, input, output or error, and its steps over time.
import { append, button, copyButton, el } from "./dom.js";
import { ageOf, elapsed, formatCount, formatDuration, formatInstant, idLink, leafName, pluralize } from "./format.js";
import { errorSection, payloadSection } from "./payload_section.js";
import { isUnfinished, statusChip, statusIcon } from "./status.js";
/** @import {AskPayload} from "./payload_section.js" */
/** @import {Child, Payload, Row, Step, StepsPage, WorkflowDetails} from "./types.js" */

/**
 * @typedef {object} DetailsOptions
 * @property {number} now
 * @property {(id: string) => unknown} openWorkflow
 * @property {(after: number) => Promise<StepsPage | null>} moreSteps
 * @property {AskPayload} payload
 */

/** @type {readonly [keyof Row, string][]} */
const FACTS = [
  ["created_at", "created"],
  ["dequeued_at", "dequeued"],
  ["completed_at", "completed"],
  ["updated_at", "updated"],
  ["delay_until", "delayed until"],
  ["workflow_deadline", "deadline"],
  ["queue_name", "queue"],
  ["queue_partition_key", "partition"],
  ["priority", "priority"],
  ["deduplication_id", "deduplication ID"],
  ["app_version", "version"],
  ["application_name", "application"],
  ["executor_id", "executor"],
  ["class_name", "class"],
  ["config_name", "instance"],
  ["authenticated_user", "user"],
  ["assumed_role", "role"],
  ["schedule_name", "schedule"],
  ["recovery_attempts", "attempts"],
  ["attributes", "attributes"],
];
const INSTANTS = ["created_at", "dequeued_at", "completed_at", "updated_at", "delay_until",
  "workflow_deadline"];
const LINE_LENGTH = 90;

/**
 * @param {WorkflowDetails & StepsPage} found
 * @param {DetailsOptions} options
 */
export function workflowDetails(found, options) {
  return el("div", { class: "dn-details" },
    workflowFacts(found, options.now, options.openWorkflow),
    el("div", { class: "dn-payloads" },
      found.error && errorSection(found.error, options.payload, found.row.id),
      found.input && payloadSection("input", found.input, options.payload, found.row.id),
      found.output && payloadSection("output", found.output, options.payload, found.row.id)),
    channelsSection(found),
    stepsSection(found, options));
}

/**
 * @param {WorkflowDetails} found
 * @param {number} now
 * @param {(id: string) => unknown} openWorkflow
 */
export function workflowFacts({ row, forks }, now, openWorkflow) {
  const link = (/** @type {string} */ id) => idLink(id, `Show ${id}`, openWorkflow);
  /** @type {[string, Child][]} */
  const facts = [
    ["id", [el("code", {}, row.id),
      copyButton("Copy", "Copy the ID", () => row.id, { class: "dn-muted" })]],
    ...FACTS.filter(([key]) => isShown(key, row)).map(([key, name]) => /** @type {[string, Child]} */ (
      [name, INSTANTS.includes(key) ? ageOf(Number(row[key]), now) : String(row[key])])),
    ["parent", row.parent_workflow_id !== undefined && link(row.parent_workflow_id)],
    ["failed in", row.failed_workflow_id !== undefined && row.failed_workflow_id !== row.id
      && idLink(row.failed_workflow_id, `Show ${row.failed_workflow_id}`, openWorkflow, row.id)],
    ["forked from", row.forked_from !== undefined && link(row.forked_from)],
    ["forks", forks.length > 0
      && forks.map((fork) => [statusIcon(fork.status), link(fork.id), " "])],
  ];
  return factList(facts);
}

/**
 * A list of names and values; a value that is missing is left out.
 * @param {readonly (readonly [string, Child])[]} facts
 */
export function factList(facts) {
  return el("dl", { class: "dn-facts" }, facts
    .filter(([, value]) => value !== undefined && value !== null && value !== false && value !== "")
    .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/**
 * @param {keyof Row} key
 * @param {Row} row
 */
function isShown(key, row) {
  if (key === "updated_at") return row.updated_at !== undefined && row.completed_at === undefined;
  if (key === "priority") return Boolean(row.priority);
  if (key === "recovery_attempts") return (row.recovery_attempts ?? 0) > 1;
  return row[key] !== undefined;
}

/**
 * What a workflow published: the events that it set, and the newest values of its streams.
 * @param {WorkflowDetails} found
 */
export function channelsSection({ events = [], streams = [] }) {
  if (!events.length && !streams.length) return null;
  return el("section", { class: "dn-channels" },
    factList(events.map(({ name, value }) => [`event ${name}`, shortPayload(value)])),
    streams.map(({ name, closed, values }) => el("div", {},
      el("h4", {}, `stream ${name}`, values[0] && `, ${pluralize(values[0].offset + 1, "value")}`,
        closed ? ", closed" : ", open"),
      el("ol", { class: "dn-stream" }, values.map(({ offset, value }) => el("li", { value: offset },
        shortPayload(value)))))));
}

/**
 * Where a step's result comes from if the latest run did not make it: a fork copies the first steps
 * of its original with their times, and a resumed or recovered run keeps those of the earlier run.
 * @param {Step} step
 * @param {Row} row
 */
function earlierOrigin(step, row) {
  const { completed_at: completed } = step;
  if (row.forked_from !== undefined && isBefore(completed, row.created_at, 1000)) return "copied";
  if (row.status === "ENQUEUED" || row.status === "DELAYED") return "earlier";
  const isRepeated = row.dequeued_at !== undefined && row.enqueued_at === undefined;
  return isRepeated && isBefore(completed, row.started_at) ? "earlier" : "";
}

/**
 * @param {number | undefined} earlier
 * @param {number | undefined} later
 * @param {number} [tolerance]
 */
function isBefore(earlier, later, tolerance = 0) {
  return earlier !== undefined && later !== undefined && earlier + tolerance < later;
}

/**
 * The interval that the bars cover: from the first to the last instant of the latest run.
 * @param {WorkflowDetails & StepsPage} found
 * @param {number} now
 * @returns {{begin: number, length: number}}
 */
function timeScale({ row, steps }, now) {
  const known = [...steps.filter((step) => !earlierOrigin(step, row))
    .flatMap((step) => [step.started_at, step.completed_at]),
  row.started_at, row.completed_at, isUnfinished(row.status) ? now : undefined]
    .filter((at) => at !== undefined);
  const begin = Math.min(...known);
  return { begin, length: Math.max(1, Math.max(...known) - begin) };
}

/**
 * @param {WorkflowDetails & StepsPage} found
 * @param {DetailsOptions} options
 */
function stepsSection(found, options) {
  const { row, steps } = found;
  const last = steps.at(-1);
  if (!last) {
    return el("section", { class: "dn-steps" }, el("p", { class: "dn-note" }, "No steps recorded."));
  }
  const scale = timeScale(found, options.now);
  const lines = (/** @type {readonly Step[]} */ page) =>
    page.map((step) => stepLine(step, row, scale, options));
  const body = el("tbody", {}, lines(steps));
  return el("section", { class: "dn-steps" },
    el("table", { "aria-label": "Steps" },
      el("thead", {}, el("tr", {},
        el("th", { scope: "col", class: "n" }, "#"),
        el("th", { scope: "col" }, el("span", { class: "dn-visually-hidden" }, "status")),
        el("th", { scope: "col" }, "step"),
        el("th", { scope: "col", class: "dn-timeline" }, `timeline, ${formatDuration(scale.length)}`),
        el("th", { scope: "col", class: "n" }, "duration"),
        el("th", { scope: "col" }, "result"))),
      body),
    found.more_steps && moreButton(last.number, options.moreSteps,
      (page) => append(body, lines(page))),
    row.status === "PENDING" && el("p", { class: "dn-note" }, statusChip(row.status),
      ` after step ${last.number}; a step is recorded when it finishes`));
}

/**
 * @param {number} last the number of the last step that is shown
 * @param {(after: number) => Promise<StepsPage | null>} load
 * @param {(steps: readonly Step[]) => unknown} add
 */
function moreButton(last, load, add) {
  let after = last;
  const more = button("More steps", null, async () => {
    more.disabled = true;
    const answer = await load(after);
    more.disabled = false;
    if (!answer) return;
    add(answer.steps);
    after = answer.steps.at(-1)?.number ?? after;
    if (!answer.more_steps) more.remove();
  });
  return more;
}

/**
 * @param {Step} step
 * @param {Row} row
 * @param {{begin: number, length: number}} scale
 * @param {DetailsOptions} options
 */
function stepLine(step, row, scale, { openWorkflow }) {
  const { child } = step;
  const origin = earlierOrigin(step, row);
  return el("tr", { "data-status": step.status },
    el("td", { class: "n" }, step.number),
    el("td", {}, statusIcon(step.status)),
    el("td", { class: "dn-step", title: step.name }, leafName(step.name),
      child !== undefined && [" ", idLink(child, `Show ${child}`, openWorkflow, row.id)]),
    el("td", { class: "dn-timeline" },
      origin ? el("span", { class: "dn-muted" }, origin) : timeBar(step, scale)),
    el("td", { class: "n" }, formatDuration(elapsed(step.started_at, step.completed_at))),
    el("td", { class: "dn-result" }, shortPayload(step.result)));
}

/**
 * @param {Step} step
 * @param {{begin: number, length: number}} scale
 */
function timeBar({ status, started_at: started, completed_at: completed }, { begin, length }) {
  if (started === undefined || completed === undefined) return "";
  const left = Math.max(0, Math.min(99, (100 * (started - begin)) / length));
  const width = Math.min(100 - left, (100 * (completed - started)) / length);
  const bar = el("i", { "data-status": status });
  bar.style.marginLeft = `${left}%`;
  bar.style.width = `${width}%`;
  return el("span", { class: "dn-time-bar", title: formatInstant(started) }, bar);
}

/**
 * A payload on one line, which opens where it is longer.
 * @param {Payload | undefined} value
 */
function shortPayload(value) {
  if (!value || value.text === "None") return el("span", { class: "dn-muted" }, "None");
  const line = value.text.split("\n").join(" ");
  const isShort = line.length <= LINE_LENGTH;
  if (isShort && !value.text.includes("\n")) return el("code", {}, line);
  return el("details", {},
    el("summary", {}, el("code", {}, isShort ? line : `${line.slice(0, LINE_LENGTH)}…`)),
    el("pre", { tabindex: "0" }, value.text), value.left_out !== undefined && el("p", { class: "dn-note" },
      `${formatCount(value.left_out)} more characters`));
}
