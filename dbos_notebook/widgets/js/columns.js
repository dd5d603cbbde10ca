// The columns of the list: what each shows of a row, and what it sorts by.
import { el } from "./dom.js";
import { shortType } from "./details.js";
import { UNFINISHED, chip, count, exact, span, when } from "./format.js";

function took(row, now) {
  if (row.status === "PENDING") {
    return el("span", { class: "dn-running", "data-since": row.started_at, title: "still running" },
      span(now - row.started_at));
  }
  if (UNFINISHED.includes(row.status) || row.duration === undefined) return "";
  // SQLite may hold whole seconds, of which 0 says only that it was quick.
  const whole = [row.started_at, row.completed_at ?? row.updated_at].every((at) => at % 1000 === 0);
  return row.duration === 0 && whole ? "< 1 s" : span(row.duration);
}

// Not known where a run was resumed or recovered, and not yet begun where it is delayed.
function waited(row, now) {
  if (row.enqueued_at === undefined) return "";
  if (row.status !== "ENQUEUED") return span(Math.max(0, row.started_at - row.enqueued_at));
  return el("span", { class: "dn-running", "data-since": row.enqueued_at,
    title: `since ${exact(row.enqueued_at)}` }, span(now - row.enqueued_at));
}

function position(row, now) {
  if (row.position) {
    return el("span", { title: `${row.position} of ${row.queue_length} that wait` },
      count(row.position), el("span", { class: "dn-quiet" }, ` of ${count(row.queue_length)}`));
  }
  if (row.status === "DELAYED" && row.delay_until) return when(row.delay_until, now);
  return el("span", { class: "dn-quiet" }, row.status === "PENDING" ? "running" : "");
}

const text = (key) => (row) => row[key] === undefined ? "" : el("span", { title: row[key] }, row[key]);

const queue = (row) => row.queue_name === undefined ? "" : el("span",
  { title: row.queue_name, class: row.queue_name.startsWith("_dbos_") ? "dn-quiet" : null },
  row.queue_name,
  row.queue_partition_key && el("span", { class: "dn-quiet" }, ` · ${row.queue_partition_key}`));

const STATUS = { key: "status", label: "status", show: (row) => chip(row.status), rank: 0 };
const CREATED = { key: "created_at", label: "created", rank: 1, time: true,
  show: (row, now) => when(row.created_at, now) };
const QUEUE = { key: "queue_name", label: "queue", show: queue, rank: 2, optional: true };
const VERSION = { key: "app_version", label: "version", show: text("app_version"), rank: 3,
  optional: true };
const USER = { key: "authenticated_user", label: "user", rank: 4,
  optional: true, show: text("authenticated_user") };
const NAME = { key: "name", label: "workflow", rank: 0, main: true };

export const COLUMNS = {
  flat: [STATUS, NAME, CREATED,
    { key: "duration", label: "took", show: took, rank: 1, number: true }, QUEUE, VERSION, USER],
  queued: [STATUS, NAME,
    { key: "queue_position", label: "place", show: position, rank: 0, number: true },
    { key: "created_at", label: "waits", show: waited, rank: 1, number: true, reversed: true },
    QUEUE, { key: "priority", label: "priority", show: text("priority"), rank: 3, number: true },
    VERSION, USER],
};
COLUMNS.tree = COLUMNS.flat;

// What is on a row besides its columns: its name, ID and relatives; and what went wrong.
export function identity(row, inTree) {
  const marks = [];
  if (row.forked_from) marks.push(mark("fork", `forked from ${row.forked_from}`));
  if (row.was_forked_from) marks.push(mark("has forks", "others were forked from it"));
  if (row.parent_workflow_id && !inTree) marks.push(mark("child", `of ${row.parent_workflow_id}`));
  if (row.children && !inTree) {
    marks.push(mark(`${row.children} ${row.children === 1 ? "child" : "children"}`, "started by it"));
  }
  if (row.recovery_attempts > 1) marks.push(mark(`${row.recovery_attempts} attempts`, "executions"));
  return [
    el("span", { class: "dn-name", title: row.name }, row.name ?? "–"),
    el("code", { class: "dn-id", title: row.id }, row.id),
    marks,
  ];
}

export function trouble(row) {
  if (!row.error_type && !row.error_message) return null;
  return el("div", { class: "dn-error", title: row.error_message },
    row.error_type && el("b", {}, shortType(row.error_type)),
    row.error_message && (row.error_type ? `: ${row.error_message}` : row.error_message));
}

function mark(label, title) {
  return el("span", { class: "dn-mark", title }, label);
}
