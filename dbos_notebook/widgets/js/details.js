// What an opened row tells: facts, input, output or error, and the steps along their time.
import { el, put } from "./dom.js";
import { UNFINISHED, chip, exact, span, statusIcon, when } from "./format.js";

const FACTS = [
  ["created_at", "created"],
  ["dequeued_at", "dequeued"],
  ["completed_at", "completed"],
  ["updated_at", "changed"],
  ["delay_until", "delayed until"],
  ["workflow_deadline", "deadline"],
  ["queue_name", "queue"],
  ["queue_partition_key", "partition"],
  ["priority", "priority"],
  ["deduplication_id", "deduplication"],
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
const SHORT = 90;

export function details(found, now, doing) {
  const row = found.row;
  const body = el("div", { class: "dn-details" });
  put(body, facts(row, found, now, doing));
  const payloads = el("div", { class: "dn-payloads" });
  if (found.input) put(payloads, payload("input", found.input));
  if (found.error) put(payloads, failure(found.error));
  if (found.output) put(payloads, payload("output", found.output));
  put(body, payloads, steps(found, now, doing));
  return body;
}

export function facts(row, found, now, doing) {
  const list = el("dl", { class: "dn-facts" });
  const fact = (name, ...value) => put(list, el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  fact("id", el("code", {}, row.id), copyButton(row.id, doing));
  for (const [key, name] of FACTS) {
    if (row[key] === undefined) continue;
    if (key === "updated_at" && row.completed_at !== undefined) continue;
    if (key === "priority" && row.priority === 0) continue;
    if (key === "recovery_attempts" && row.recovery_attempts <= 1) continue;
    fact(name, INSTANTS.includes(key) ? when(row[key], now) : row[key]);
  }
  if (row.parent_workflow_id) fact("parent", idLink(row.parent_workflow_id, doing));
  if (row.forked_from) fact("forked from", idLink(row.forked_from, doing));
  if (found.forks.length) {
    fact("forks", found.forks.map((fork) => [statusIcon(fork.status), idLink(fork.id, doing), " "]));
  }
  return list;
}

export function idLink(id, doing) {
  return el(
    "button",
    { type: "button", class: "dn-link", title: `Find ${id}`, on: { click: () => doing.find(id) } },
    id,
  );
}

export function copyButton(text, doing) {
  const button = el("button", { type: "button", class: "dn-quiet", title: "Copy the ID" }, "copy");
  button.addEventListener("click", async () => {
    button.textContent = (await doing.copy(text)) ? "copied" : "select it, and copy";
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
  return button;
}

export function payload(name, value) {
  return el("section", {}, el("h4", {}, name), written(value));
}

function written(value) {
  return [
    el("pre", { tabindex: "0" }, value.text),
    value.left_out && el("p", { class: "dn-note" },
      `${value.left_out.toLocaleString("en-US")} more characters: db.workflow(…) has the value`),
  ];
}

export function failure(error) {
  const section = el("section", { class: "dn-failure" }, el("h4", {}, "error"));
  if (!error.type) return put(section, written(error));
  put(section, el("pre", { tabindex: "0" }, el("b", {}, shortType(error.type)), `: ${error.message}`));
  for (const note of error.notes ?? []) put(section, el("p", { class: "dn-note" }, note));
  if (error.type.includes(".")) put(section, el("p", { class: "dn-note" }, error.type));
  if (error.traceback) {
    put(section, el("details", {}, el("summary", {}, "recorded traceback"),
      el("pre", { tabindex: "0" }, error.traceback)));
  }
  return section;
}

export function shortType(type) {
  return type.slice(type.lastIndexOf(".") + 1);
}

// Steps that did not run in the latest run: a fork's first ones are the original's, with its times,
// and those of a run that was resumed or recovered are older than it.
function older(step, row) {
  if (row.forked_from !== undefined && step.completed_at + 1000 < row.created_at) return "copied";
  if (row.status === "ENQUEUED" || row.status === "DELAYED") return "earlier";
  const again = row.dequeued_at !== undefined && row.enqueued_at === undefined;
  return again && step.completed_at < row.started_at ? "earlier" : "";
}

// The time from the first of what this run did to the last.
function scale(found, now) {
  const own = found.steps.filter((step) => !older(step, found.row));
  const times = own.flatMap((step) => [step.started_at, step.completed_at]);
  const row = found.row;
  times.push(row.started_at, row.completed_at);
  if (UNFINISHED.includes(row.status)) times.push(now);
  const known = times.filter((time) => time !== undefined);
  const from = Math.min(...known);
  return [from, Math.max(1, Math.max(...known) - from)];
}

function steps(found, now, doing) {
  const section = el("section", { class: "dn-steps" });
  if (!found.steps.length) return put(section, el("p", { class: "dn-note" }, "No step is recorded."));
  const [from, long] = scale(found, now);
  const body = el("tbody");
  const table = el("table", { "aria-label": "Steps" },
    el("thead", {}, el("tr", {},
      el("th", { scope: "col", class: "n" }, "#"),
      el("th", { scope: "col" }, el("span", { class: "dn-unseen" }, "status")),
      el("th", { scope: "col" }, "step"),
      el("th", { scope: "col", class: "dn-when" }, `within ${span(long)}`),
      el("th", { scope: "col", class: "n" }, "took"),
      el("th", { scope: "col" }, "result"))),
    body);
  const add = (rows) => put(body, rows.map((step) => stepRow(step, found.row, from, long, doing)));
  add(found.steps);
  put(section, table);
  if (found.more_steps) {
    let last = found.steps.at(-1).number;
    const more = el("button", { type: "button", class: "dn-button" }, "More steps");
    more.addEventListener("click", async () => {
      more.disabled = true;
      const answer = await doing.moreSteps(last);
      more.disabled = false;
      if (!answer) return;
      add(answer.steps);
      last = answer.steps.at(-1)?.number ?? last;
      if (!answer.more_steps) more.remove();
    });
    put(section, more);
  }
  if (found.row.status === "PENDING") {
    put(section, el("p", { class: "dn-note" }, chip("PENDING"),
      ` after step ${found.steps.at(-1).number}: a step is recorded when it ends`));
  }
  return section;
}

function stepRow(step, row, from, long, doing) {
  const took = step.completed_at !== undefined && step.started_at !== undefined
    ? step.completed_at - step.started_at : undefined;
  return el("tr", { "data-status": step.status },
    el("td", { class: "n" }, step.number),
    el("td", {}, statusIcon(step.status)),
    el("td", { class: "dn-step" }, step.name, step.child && [" ", idLink(step.child, doing)]),
    el("td", { class: "dn-when" }, older(step, row)
      ? el("span", { class: "dn-quiet" }, older(step, row)) : took === undefined ? "" : bar(step, from, long)),
    el("td", { class: "n" }, span(took)),
    el("td", { class: "dn-result" }, result(step.result)));
}

function bar(step, from, long) {
  const left = Math.max(0, Math.min(99, (100 * (step.started_at - from)) / long));
  const width = Math.min(100 - left, (100 * (step.completed_at - step.started_at)) / long);
  const drawn = el("i", { "data-status": step.status });
  drawn.style.marginLeft = `${left}%`;
  drawn.style.width = `${width}%`;
  return el("span", { class: "dn-bar", title: exact(step.started_at) }, drawn);
}

export function result(value, whole = false) {
  if (!value || value.text === "None") return el("span", { class: "dn-quiet" }, "None");
  if (whole) return written(value);
  const line = value.text.split("\n").join(" ");
  if (line.length <= SHORT && !value.text.includes("\n")) return el("code", {}, line);
  return el("details", {},
    el("summary", {}, el("code", {}, line.length > SHORT ? `${line.slice(0, SHORT)}…` : line)),
    written(value));
}
