// What is told of the run above its picture: which it is, how it goes, where it came from.
import { copy, el, icon } from "./dom.js";
import { chip, count, span, statusIcon, UNFINISHED, when } from "./format.js";
import { shortType } from "./details.js";

const COPY = "M5.5 5.5h8v8h-8zM3 10.5H2.5v-8h8V3";

export function button(label, title, act, more = {}) {
  return el("button", { type: "button", class: "dn-button", title, on: { click: act }, ...more },
    label);
}

export function otherRun(id, doing) {
  if (doing.offline) return el("code", {}, id);
  return el("button", { type: "button", class: "dn-link dn-cut", title: `Show ${id} here`,
    on: { click: () => doing.openRun(id) } }, id);
}

function compareButton(first, second, doing) {
  if (doing.offline) return null;
  return el("button", { type: "button", class: "dn-quiet", title: "Compare the two runs",
    on: { click: () => doing.compare(first, second) } }, "compare");
}

function fact(...parts) {
  return el("span", {}, parts);
}

// doing: {now, before: the run one came from, offline, live: node, actions: node or null, forbidden,
// back(), refresh(), copyCode(), openRun(id), compare(first, second)}
export function runHead({ row, forks, took, unstarted, counts }, doing) {
  return [nameLine(row, doing), factLine({ row, forks, took, unstarted, counts }, doing),
    row.error_type && el("p", { class: "dn-why" }, el("b", {}, shortType(row.error_type)),
      row.error_message && `: ${row.error_message}`),
    doing.actions && el("div", { class: "dn-act-line" }, doing.actions,
      doing.forbidden && el("span", { class: "dn-note" }, doing.forbidden))];
}

function nameLine(row, doing) {
  const copyId = button(icon(COPY), "Copy the ID", async () => {
    copyId.toggleAttribute("data-done", await copy(row.id));
  }, { class: "dn-button dn-tool", "aria-label": "Copy the ID" });
  return el("div", { class: "dn-name-line" },
    doing.before && button("‹ Back", `Back to ${doing.before}`, () => doing.back()),
    chip(row.status), el("h2", {}, row.name ?? "workflow"),
    el("code", { class: "dn-run-id", title: row.id }, row.id), copyId,
    el("span", { class: "dn-space" }),
    !doing.offline && el("span", { class: "dn-group" }, doing.live,
      button("Refresh", "Ask again now", () => doing.refresh()),
      button("Code", "Copy the Python that shows this", () => doing.copyCode())));
}

function factLine({ row, forks, took, unstarted, counts }, doing) {
  const now = doing.now();
  const { started_at: begun, enqueued_at: waits } = row;
  const since = row.status === "PENDING" ? begun : row.status === "ENQUEUED" ? waits : undefined;
  const said = row.status === "ENQUEUED" ? "has waited " : "";
  const lasted = UNFINISHED.includes(row.status)
    ? since !== undefined && [said, el("span", { class: "dn-running", "data-since": since },
      span(now - since))]
    : took && `took ${took}`;
  return el("div", { class: "dn-fact-line" },
    lasted && fact(lasted),
    unstarted && fact(unstarted),
    row.status === "DELAYED" && row.delay_until && fact("delay ends ", when(row.delay_until, now)),
    fact(begun === undefined ? "created " : "began ", when(begun ?? row.created_at, now)),
    row.queue_name && fact("queue ", el("b", {}, row.queue_name)),
    row.app_version && fact("version ", el("b", {}, row.app_version)),
    row.recovery_attempts > 1 && fact("attempts ", el("b", {}, row.recovery_attempts)),
    row.parent_workflow_id && fact("child of ", otherRun(row.parent_workflow_id, doing)),
    row.forked_from && fact("fork of ", otherRun(row.forked_from, doing),
      compareButton(row.forked_from, row.id, doing)),
    forks.length > 0 && fact(forks.length === 1 ? "forked as " : `${forks.length} forks: `,
      forks.slice(0, 6).map((fork) => el("span", { class: "dn-fork" }, statusIcon(fork.status),
        otherRun(fork.id, doing), compareButton(row.id, fork.id, doing))),
      forks.length > 6 && " …"),
    fact(counts));
}
