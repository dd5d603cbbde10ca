// The columns of the list: what each shows of a row, and what it sorts by.
import { el } from "./dom.js";
import { ageOf, breakableName, formatCount, formatDuration, formatInstant, formatSeconds, idLabel, idLink, middleCut, pluralize, runningTime } from "./format.js";
import { isUnfinished, statusChip } from "./status.js";
/** @import {Child, Column, Mode, Row} from "./types.js" */

/**
 * @param {Row} row
 * @param {number} now
 * @returns {Child}
 */
function duration(row, now) {
  if (row.status === "PENDING") return runningTime(row.started_at, now, "still running");
  if (isUnfinished(row.status) || row.duration === undefined) return "";
  // SQLite may record whole seconds.
  const inSeconds = [row.started_at, row.completed_at ?? row.updated_at]
    .every((at) => at !== undefined && at % 1000 === 0);
  return inSeconds ? formatSeconds(row.duration) : formatDuration(row.duration);
}

/**
 * The time on a queue. It is unknown for a run that was resumed or recovered.
 * @param {Row} row
 * @param {number} now
 * @returns {Child}
 */
function queueWait({ status, enqueued_at: enqueuedAt, started_at: startedAt }, now) {
  if (enqueuedAt === undefined) return "";
  if (status === "ENQUEUED") {
    return runningTime(enqueuedAt, now, `since ${formatInstant(enqueuedAt)}`);
  }
  return startedAt === undefined ? "" : formatDuration(Math.max(0, startedAt - enqueuedAt));
}

/**
 * The position on a queue.
 * @param {Row} row
 * @param {number} now
 * @returns {Child}
 */
function position(row, now) {
  const { position: place, queue_length: length = 0 } = row;
  if (place) {
    return el("span", { title: `${place} of ${length} waiting` }, formatCount(place),
      el("span", { class: "dn-muted" }, ` of ${formatCount(length)}`));
  }
  if (row.status === "DELAYED" && row.delay_until) return ageOf(row.delay_until, now);
  return el("span", { class: "dn-muted" }, row.status === "PENDING" ? "running" : "");
}

/**
 * @param {"authenticated_user" | "priority"} key
 * @returns {(row: Row) => Child}
 */
function text(key) {
  return ({ [key]: value }) => value === undefined ? "" : el("span", { title: value }, value);
}

/**
 * A short version whole; the default one, a hash, is cut in its middle.
 * @param {Row} row
 * @returns {Child}
 */
function version({ app_version: value }) {
  return value === undefined ? "" : el("span", { title: value, class: "dn-cut dn-version" }, middleCut(value));
}

/**
 * @param {Row} row
 * @returns {Child}
 */
function queue({ queue_name: name, queue_partition_key: partition }) {
  if (name === undefined) return "";
  return el("span", { title: partition ? `${name} · ${partition}` : name,
    class: `dn-cut ${name.startsWith("_dbos_") ? "dn-muted" : ""}` }, middleCut(name),
  partition && el("span", { class: "dn-muted" }, ` · ${partition}`));
}

/** @type {Column} */
const STATUS = { key: "status", label: "status", rank: 0, show: (row) => statusChip(row.status) };
/** @type {Column} */
const NAME = { key: "name", label: "workflow", rank: 0, main: true, track: "minmax(var(--dn-main), 1fr)" };
/** @type {Column} */
const CREATED = { key: "created_at", label: "created", rank: 1, unit: "created",
  show: (row, now) => ageOf(row.created_at, now) };
/** @type {Column} */
const DURATION = { key: "duration", label: "duration", rank: 0, number: true, show: duration };
/** @type {Column} */
const POSITION = { key: "queue_position", label: "position", rank: 0, number: true, show: position };
/** @type {Column} */
const QUEUE_WAIT = { key: "created_at", label: "waiting", rank: 0, number: true, reversed: true,
  show: queueWait };
/** @type {Column} */
const QUEUE = { key: "queue_name", label: "queue", rank: 2, optional: true, show: queue,
  track: "fit-content(max(186px, 17cqw))" };
/** @type {Column} */
const PRIORITY = { key: "priority", label: "priority", rank: 3, number: true, unit: "priority",
  show: text("priority") };
/** @type {Column} */
const VERSION = { key: "app_version", label: "version", rank: 3, optional: true, unit: "version", show: version };
/** @type {Column} */
const USER = { key: "authenticated_user", label: "user", rank: 4, optional: true, unit: "user", track: "fit-content(140px)",
  show: text("authenticated_user") };

const ALL = [STATUS, NAME, CREATED, DURATION, QUEUE, VERSION, USER];
/** @type {Record<Mode, readonly Column[]>} */
export const COLUMNS = {
  flat: ALL,
  tree: ALL,
  queued: [STATUS, NAME, POSITION, QUEUE_WAIT, QUEUE, PRIORITY, VERSION, USER],
};

/**
 * The main column: name and ID, and how the workflow relates to others.
 * @param {Row} row
 * @param {boolean} inTree where parents and children are shown as such
 * @param {(id: string) => unknown} open
 * @returns {Child}
 */
export function identity(row, inTree, open) {
  const { recovery_attempts: attempts = 0, parent_workflow_id: parent } = row;
  return [
    el("span", { class: "dn-name", title: row.name }, row.name === undefined ? "–" : breakableName(row.name)),
    idLabel(row.id, parent),
    row.forked_from !== undefined && mark("fork", `forked from ${row.forked_from}`),
    row.repaired ? mark("repaired", "a run of the same chain of forks has succeeded since")
      : row.was_forked_from && mark("has forks", "other runs were forked from it"),
    parent !== undefined && !inTree && parentLink(parent, open),
    row.children !== undefined && !inTree
      && mark(pluralize(row.children, "child", "children"), "workflows that it started"),
    attempts > 1 && mark(`${attempts} attempts`, "times it was started"),
  ];
}

/**
 * @param {string} label
 * @param {string} title
 */
function mark(label, title) {
  return el("span", { class: "dn-mark", title }, label);
}

/**
 * @param {string} id
 * @param {(id: string) => unknown} open
 */
export function parentLink(id, open) {
  return el("span", { class: "dn-parent" }, "child of ", idLink(id, `Show the parent ${id}`, open));
}
