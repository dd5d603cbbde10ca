// What is told of one node beside the picture: a step, a workflow, a group, or a comparison.
import { copy, el, put } from "./dom.js";
import { chip, count, exact, span, statusIcon } from "./format.js";
import { facts, failure, payload, shortType } from "./details.js";

// doing: {now, copy, go(key), openRun(id), fork(id, number), raw(key), code(key), close(), find(id),
// mayFork, offline, actions: node or null}
export function nodePanel(found, doing) {
  const makers = { step: stepPanel, workflow: workflowPanel, group: groupPanel,
    running: runningPanel };
  return put(el("div", { class: "dn-told" }), makers[found.kind](found, doing));
}

function heading(status, title, sub, doing) {
  return el("header", {}, statusIcon(status), el("h3", { tabindex: "-1" }, title),
    sub && el("span", { class: "dn-quiet" }, sub), el("span", { class: "dn-space" }),
    el("button", { type: "button", class: "dn-button dn-tool", title: "Close (Escape)",
      "aria-label": "Close the details", on: { click: () => doing.close() } }, "×"));
}

function list(pairs) {
  return put(el("dl", { class: "dn-facts" }), pairs
    .filter(([, value]) => value !== undefined && value !== null && value !== "")
    .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function runLink(id, doing, said = id) {
  return el("button", { type: "button", class: "dn-link", title: `Show ${id} here`,
    on: { click: () => doing.openRun(id) } }, said);
}

function nodeLink(node, doing) {
  return el("button", { type: "button", class: "dn-link", title: "Show it in the picture",
    on: { click: () => doing.go(node.key) } },
  node.kind === "workflow" ? node.workflow_id : `${node.name} #${node.number}`);
}

function stepPanel(found, doing) {
  const { step } = found;
  const key = [step.workflow_id, step.number];
  const took = step.completed_at !== undefined && step.started_at !== undefined
    ? span(step.completed_at - step.started_at) : undefined;
  const parts = [heading(step.status, step.name, `#${step.number}`, doing), list([
    ["started", step.started_at && exact(step.started_at)],
    ["took", took],
    ["attempts", found.attempts],
    ["workflow", runLink(step.workflow_id, doing)],
    ["child", step.child && el("button", { type: "button", class: "dn-link",
      title: "Show the child", on: { click: () => doing.go(step.child) } }, step.child)],
  ])];
  if (doing.mayFork) {
    parts.push(el("div", { class: "dn-doing" }, el("button", {
      type: "button", class: "dn-button dn-strong", disabled: Boolean(doing.forbidden),
      title: doing.forbidden ?? "Start a new run that copies the steps before this one, and runs from here",
      on: { click: () => doing.fork(step.workflow_id, step.number) },
    }, "Fork from here …"), codeButton(key, doing)));
  } else if (!doing.offline) parts.push(el("div", { class: "dn-doing" }, codeButton(key, doing)));
  if (found.error) parts.push(failure(found.error));
  if (found.output) parts.push(payload("output", found.output));
  if (!doing.offline) parts.push(rawPart(key, doing));
  return parts;
}

function workflowPanel(found, doing) {
  const { row } = found;
  const parts = [heading(row.status, row.name ?? "workflow", "workflow", doing)];
  const elsewhere = row.id !== doing.root;
  if (!doing.offline) {
    parts.push(el("div", { class: "dn-doing" },
      elsewhere && el("button", { type: "button", class: "dn-button",
        title: "Show this workflow here, in place of the one above it",
        on: { click: () => doing.openRun(row.id) } }, "Show alone"),
      elsewhere && doing.actions, codeButton(row.id, doing)));
  }
  parts.push(facts(row, found, doing.now(), doing));
  if (found.error) parts.push(failure(found.error));
  if (found.input) parts.push(payload("input", found.input));
  if (found.output) parts.push(payload("output", found.output));
  if (!doing.offline) parts.push(rawPart(row.id, doing));
  return parts;
}

function groupPanel(found, doing) {
  const times = found.levels ? "levels of" : "×";
  const parts = [heading(found.status, `${count(found.count)} ${times} ${found.name}`,
    `${found.of}s`, doing)];
  const range = found.duration_min === undefined ? undefined
    : `${span(found.duration_min)} – ${span(found.duration_max)}`;
  parts.push(list([
    ["statuses", Object.entries(found.statuses).map(([status, number]) =>
      [chip(status), ` ${count(number)} `])],
    ["each took", range],
    ["together", found.duration_total !== undefined && span(found.duration_total)],
    ["failures inside", found.inside || undefined],
  ]));
  parts.push(el("div", { class: "dn-doing" }, doing.isOpen(found.group)
    ? el("button", { type: "button", class: "dn-button",
      on: { click: () => doing.foldGroup(found.group) } }, "Fold again")
    : el("button", { type: "button", class: "dn-button",
      on: { click: () => doing.openGroup(found.group) } }, "Open")));
  parts.push(el("ul", { class: "dn-members" }, found.members.map((member) => el("li", {},
    statusIcon(member.status), nodeLink(member, doing),
    member.error && el("b", {}, shortType(member.error)),
    el("span", { class: "dn-quiet" }, member.took ?? span(member.duration))))));
  if (found.left_out) parts.push(el("p", { class: "dn-note" }, `… and ${count(found.left_out)} more`));
  return parts;
}

function runningPanel(found, doing) {
  return [heading("PENDING", "running", found.name, doing),
    el("p", { class: "dn-note" },
      "A step is recorded when it ends. What runs now is known only by what has ended before.")];
}

function codeButton(key, doing) {
  const button = el("button", { type: "button", class: "dn-button",
    title: "Copy the Python that gives this" }, "Copy as code");
  button.addEventListener("click", async () => {
    const text = await doing.code(key);
    if (text === null) return;
    if (await copy(text)) {
      button.textContent = "copied";
      setTimeout(() => (button.textContent = "Copy as code"), 1500);
    } else button.replaceWith(el("code", {}, text));
  });
  return button;
}

function rawPart(key, doing) {
  const box = el("div", {});
  const part = el("details", { class: "dn-raw" }, el("summary", {}, "as stored"), box);
  part.addEventListener("toggle", async () => {
    if (!part.open || box.firstChild) return;
    const payloads = await doing.raw(key);
    if (!payloads) return;
    if (!payloads.length) put(box, el("p", { class: "dn-note" }, "Nothing is stored."));
    for (const one of payloads) {
      put(box, el("p", { class: "dn-note" },
        `${one.name}: ${one.format}, ${count(one.length)} characters`),
      el("pre", { tabindex: "0" }, one.text));
    }
  });
  return part;
}

// What differs between two runs, as lines that lead to the picture.
export function comparisonPanel(found, doing) {
  const words = Object.entries(found.counts)
    .map(([word, number]) => `${count(number)} ${differs(word)}`).join(", ");
  const rows = found.rows.map((row) => {
    const key = row.second ?? row.first;
    const number = Array.isArray(key) && typeof key[1] === "number" ? ` #${key[1]}` : "";
    return el("tr", {},
      el("td", {}, el("button", { type: "button", class: "dn-link",
        on: { click: () => doing.goCompared(row) } }, `${row.name ?? "?"}${number}`)),
      el("td", { class: "dn-differs", "data-word": row.difference },
        differs(row.difference)),
      el("td", {}, side(row, "first")), el("td", {}, side(row, "second")));
  });
  return el("div", { class: "dn-told" },
    el("header", {}, el("h3", { tabindex: "-1" }, "What differs"), el("span", { class: "dn-space" }),
      el("button", { type: "button", class: "dn-button dn-tool", title: "End the comparison",
        "aria-label": "End the comparison", on: { click: () => doing.endComparison() } }, "×")),
    el("p", { class: "dn-note" }, words),
    rows.length > 0 && el("table", { class: "dn-pairs" },
      el("thead", {}, el("tr", {}, ["", "", "original", "fork"].map((name) =>
        el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows)),
    found.left_out > 0 && el("p", { class: "dn-note" }, `… and ${count(found.left_out)} more`));
}

function side(row, name) {
  if (row[name] === undefined) return "–";
  return [row[`status_${name}`] && statusIcon(row[`status_${name}`]), " ",
    row[`error_type_${name}`] ? shortType(row[`error_type_${name}`]) : span(row[`duration_${name}`])];
}

function differs(word) {
  return word.replace("only in first", "only in the original")
    .replace("only in second", "only in the fork");
}
