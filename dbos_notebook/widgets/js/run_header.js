// The header of one run: what it is, how it is going, and which runs it belongs to.
import { button, copy, el, icon, iconButton, linkButton } from "./dom.js";
import { ageOf, breakableName, failedAt, runningTime, shortClassName, shortenId } from "./format.js";
import { isUnfinished, statusChip, statusIcon } from "./status.js";
/** @import {Child, Row, RunFacts} from "./types.js" */

/**
 * @typedef {object} HeaderOptions
 * @property {number} now
 * @property {string | undefined} previous the run that was shown before
 * @property {boolean} offline
 * @property {boolean} deleted
 * @property {HTMLElement} live
 * @property {HTMLElement} activity what the run is doing now
 * @property {HTMLElement | null} actions
 * @property {string | null} forbidden why nothing can be controlled
 * @property {() => unknown} back
 * @property {() => unknown} refresh
 * @property {() => unknown} copyCode
 * @property {(id: string) => unknown} openRun
 * @property {(original: string, fork: string) => unknown} compare
 */

const COPY_ICON = "M5.5 5.5h8v8h-8zM3 10.5H2.5v-8h8V3";
const MOST_FORKS = 6;
const MAX_ID = 28;

/**
 * @param {RunFacts} facts
 * @param {HeaderOptions} options
 * @returns {Child}
 */
export function runHeader(facts, options) {
  const { row } = facts;
  return [
    nameLine(row, options),
    factLine(facts, options),
    options.activity,
    row.error_type && el("p", { class: "dn-error-line" }, failedAt(row), el("b", {}, shortClassName(row.error_type)),
      row.error_message && `: ${row.error_message}`),
    options.deleted && el("p", { class: "dn-note dn-warn" }, "This run was deleted."),
    options.actions && el("div", { class: "dn-act-line" }, options.actions,
      options.forbidden && el("span", { class: "dn-note" }, options.forbidden)),
  ];
}

/**
 * A link to another run; its ID alone in a page without a kernel.
 * @param {string} id
 * @param {Pick<HeaderOptions, "offline" | "openRun">} options
 * @param {string | null} [relatedTo] the parent, relative to whose ID a default ID is written
 */
export function runLink(id, { offline, openRun }, relatedTo = null) {
  if (offline) return el("code", {}, id);
  return linkButton(shortenId(id, MAX_ID, relatedTo), `Show ${id}`, () => openRun(id), { class: "dn-link dn-truncated" });
}

/**
 * @param {Row} row
 * @param {HeaderOptions} options
 */
function nameLine(row, options) {
  const copyId = iconButton(icon(COPY_ICON), "Copy the ID", async () => {
    copyId.toggleAttribute("data-done", await copy(row.id));
  }, { class: "dn-button dn-tool" });
  return el("div", { class: "dn-name-line" },
    options.previous !== undefined
      && button("‹ Back", `Back to ${options.previous}`, () => options.back()),
    statusChip(row.status), el("h2", { tabindex: "-1", title: row.name }, breakableName(row.name ?? "workflow")),
    el("code", { class: "dn-run-id", title: row.id }, row.id), copyId,
    el("span", { class: "dn-space" }),
    !options.offline && !options.deleted && el("span", { class: "dn-group" }, options.live,
      button("Refresh", "Read the run again", () => options.refresh()),
      button("Code", "Copy the Python code of this view", () => options.copyCode())));
}

/**
 * @param {RunFacts} facts
 * @param {HeaderOptions} options
 */
function factLine({ row, forks, took, unstarted, counts }, options) {
  const { now } = options;
  const attempts = row.recovery_attempts ?? 0;
  const begun = row.started_at ?? row.created_at;
  return el("div", { class: "dn-fact-line" },
    fact(progress(row, took, now)),
    fact(unstarted),
    row.status === "DELAYED" && row.delay_until !== undefined
      && fact("delay ends ", ageOf(row.delay_until, now)),
    begun !== undefined
      && fact(row.started_at === undefined ? "created " : "started ", ageOf(begun, now)),
    row.queue_name !== undefined && fact("queue ", el("b", {}, row.queue_name)),
    row.app_version !== undefined && fact("version ", el("b", {}, row.app_version)),
    attempts > 1 && fact("attempts ", el("b", {}, attempts)),
    row.parent_workflow_id !== undefined
      && fact("child of ", runLink(row.parent_workflow_id, options)),
    row.forked_from !== undefined && fact("fork of ", runLink(row.forked_from, options),
      compareButton(row.forked_from, row.id, options)),
    forks.length > 0 && fact(forks.length === 1 ? "forked as " : `${forks.length} forks: `,
      forks.slice(0, MOST_FORKS).map((fork) => el("span", { class: "dn-fork" },
        statusIcon(fork.status), runLink(fork.id, options),
        compareButton(row.id, fork.id, options))),
      forks.length > MOST_FORKS && " …"),
    fact(counts));
}

/**
 * How long the run has taken, is taking, or has waited.
 * @param {Row} row
 * @param {string} took
 * @param {number} now
 * @returns {Child}
 */
function progress(row, took, now) {
  if (row.status === "PENDING" && row.started_at !== undefined) {
    return ["running for ", runningTime(row.started_at, now, "time since it started")];
  }
  if (row.status === "ENQUEUED" && row.enqueued_at !== undefined) {
    return ["waiting for ", runningTime(row.enqueued_at, now, "time since it was enqueued")];
  }
  return !isUnfinished(row.status) && took ? `took ${took}` : null;
}

/**
 * @param {string} original
 * @param {string} fork
 * @param {HeaderOptions} options
 */
function compareButton(original, fork, { offline, deleted, compare }) {
  return !offline && !deleted && button("Compare", "Compare the two runs", () => compare(original, fork),
    { class: "dn-muted" });
}

/** @param {...Child} parts */
function fact(...parts) {
  return Boolean(parts[0]) && el("span", {}, parts);
}
