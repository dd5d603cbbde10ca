// The panel beside the picture: a step, a workflow, a group of either, or what two runs differ in.
import { append, button, copyButton, el, iconButton, linkButton } from "./dom.js";
import { elapsed, formatCount, formatDuration, formatInstant, leafName, shortClassName, shortenId } from "./format.js";
import { statusChip, statusIcon } from "./status.js";
import { channelsSection, factList, workflowFacts } from "./details.js";
import { errorSection, payloadSection } from "./payload_section.js";
/** @import {AskPayload} from "./payload_section.js" */
/** @import {Child, ComparedRow, ComparisonAnswer, GraphNode, GroupDetails, Key, NodeDetails} from "./types.js" */
/** @import {RunningDetails, StepDetails, StoredPayload, WorkflowNodeDetails} from "./types.js" */

/**
 * @typedef {object} PanelOptions
 * @property {number} now
 * @property {string} root the workflow that is shown
 * @property {boolean} offline
 * @property {string | null} forbidden why nothing can be controlled
 * @property {boolean} canFork whether a step offers to fork from it
 * @property {HTMLElement | null} actions the buttons of another workflow than the one that is shown
 * @property {(id: string) => unknown} openRun
 * @property {(key: Key) => unknown} go
 * @property {(group: string) => boolean} isExpanded
 * @property {(group: string) => unknown} expand
 * @property {(group: string) => unknown} collapse
 * @property {(id: string, step: number) => unknown} fork
 * @property {(ids: readonly string[]) => unknown} forkAll
 * @property {(ids: readonly string[]) => unknown} repairAll
 * @property {(key: Key) => Promise<readonly StoredPayload[] | null>} raw
 * @property {(key: Key) => Promise<string | null>} code
 * @property {AskPayload} [payload] missing in a page without a kernel
 * @property {() => unknown} close
 */

/**
 * @param {NodeDetails} found
 * @param {PanelOptions} options
 */
export function nodePanel(found, options) {
  return append(el("div", { class: "dn-node-details" }), parts(found, options));
}

/**
 * @param {NodeDetails} found
 * @param {PanelOptions} options
 * @returns {Child}
 */
function parts(found, options) {
  switch (found.kind) {
    case "step": return stepParts(found, options);
    case "workflow": return workflowParts(found, options);
    case "group":
    case "aggregate": return groupParts(found, options);
    default: return runningParts(found, options);
  }
}

/**
 * @param {string} status
 * @param {string} title
 * @param {string | undefined} subtitle
 * @param {PanelOptions} options
 * @param {string} [name] the full name
 */
function heading(status, title, subtitle, options, name = title) {
  return el("header", {}, statusIcon(status), el("h3", { tabindex: "-1", title: name }, title),
    subtitle && el("span", { class: "dn-muted" }, subtitle), el("span", { class: "dn-space" }),
    closeButton("Close the details", "Close (Escape)", () => options.close()));
}

/**
 * @param {string} name
 * @param {string} title
 * @param {() => unknown} onClick
 */
function closeButton(name, title, onClick) {
  return iconButton("×", title, onClick, { class: "dn-button dn-tool", "aria-label": name });
}

/**
 * @param {StepDetails} found
 * @param {PanelOptions} options
 * @returns {Child}
 */
function stepParts({ step, attempts, error, output }, options) {
  const key = [step.workflow_id, step.number];
  const { child } = step;
  const took = elapsed(step.started_at, step.completed_at);
  return [
    heading(step.status, leafName(step.name), `#${step.number}`, options, step.name),
    factList([
      ["started", step.started_at !== undefined && formatInstant(step.started_at)],
      ["duration", formatDuration(took)],
      ["attempts", attempts],
      ["workflow", linkButton(step.workflow_id, `Show ${step.workflow_id}`,
        () => options.openRun(step.workflow_id))],
      ["child", child !== undefined
        && linkButton(child, "Show the child", () => options.go(child))],
    ]),
    !options.offline && el("div", { class: "dn-node-actions" },
      options.canFork && button("Fork from here …", options.forbidden
        ?? "Start a new run that copies the steps before this one and runs from here",
      () => options.fork(step.workflow_id, step.number),
      { class: "dn-button dn-strong", disabled: Boolean(options.forbidden) }),
      codeButton(key, options)),
    error && errorSection(error, options.payload, key),
    output && payloadSection("output", output, options.payload, key),
    !options.offline && rawSection(key, options),
  ];
}

/**
 * @param {WorkflowNodeDetails} found
 * @param {PanelOptions} options
 * @returns {Child}
 */
function workflowParts(found, options) {
  const { row, error, input, output } = found;
  const isOther = row.id !== options.root;
  return [
    heading(row.status, leafName(row.name ?? "workflow"), "workflow", options, row.name),
    !options.offline && el("div", { class: "dn-node-actions" },
      isOther && button("Open run", "Show this run in place of the current one",
        () => options.openRun(row.id)),
      isOther && options.actions, codeButton(row.id, options)),
    workflowFacts(found, options.now, options.openRun),
    error && errorSection(error, options.payload, row.id),
    input && payloadSection("input", input, options.payload, row.id),
    output && payloadSection("output", output, options.payload, row.id),
    channelsSection(found),
    !options.offline && rawSection(row.id, options),
  ];
}

/**
 * @param {GroupDetails} found
 * @param {PanelOptions} options
 * @returns {Child}
 */
function groupParts(found, options) {
  const { group, failed = [], errors = {} } = found;
  const isExpanded = group !== undefined && options.isExpanded(group);
  const each = found.duration_median ?? found.duration_min;
  return [
    heading(found.status, found.title ?? found.name, `${found.of}s`, options, found.name),
    factList([
      ["statuses", Object.entries(found.statuses).map(([status, count]) =>
        [statusChip(status), ` ${formatCount(count)} `])],
      ["failed at", found.failed_step],
      ["errors", Object.keys(errors).length > 0 && Object.entries(errors).map(([error, count]) =>
        el("div", {}, `${formatCount(count)} × `, el("b", {}, shortClassName(error))))],
      ["each", each !== undefined && (found.duration_median !== undefined
        ? `median ${formatDuration(each)}, longest ${formatDuration(found.duration_max)}`
        : `${formatDuration(each)} – ${formatDuration(found.duration_max)}`)],
      ["total", formatDuration(found.duration_total)],
      ["failures", found.inside > 0 && formatCount(found.inside)],
    ]),
    el("div", { class: "dn-node-actions" },
      group !== undefined && (isExpanded
        ? button("Collapse", "Show as one node", () => options.collapse(group))
        : button("Expand", "Show each one", () => options.expand(group))),
      options.canFork && failed.length > 0 && [
        button(`Fork ${formatCount(failed.length)} failed …`, options.forbidden
          ?? "Start a new run of each one that failed, from the step that failed",
        () => options.forkAll(failed), { disabled: Boolean(options.forbidden) }),
        button(`Repair ${formatCount(failed.length)} failed …`, options.forbidden
          ?? "Fork each one that failed together with the children that made it fail",
        () => options.repairAll(failed), { disabled: Boolean(options.forbidden) }),
      ]),
    el("ul", { class: "dn-members" }, found.members.map((member) => el("li", {},
      statusIcon(member.status), linkButton(memberName(member, found, options.root),
        `Show ${member.name} ${member.workflow_id ?? ""}`, () => options.go(member.key)),
      member.error && el("b", {}, shortClassName(member.error)),
      el("span", { class: "dn-muted" }, member.took ?? formatDuration(member.duration))))),
    found.left_out > 0
      && el("p", { class: "dn-note" }, `… and ${formatCount(found.left_out)} more`),
  ];
}

/**
 * What distinguishes a member of a group: its ID, relative to the root's where it is a child.
 * @param {GraphNode} node
 * @param {GraphNode} group
 * @param {string} root
 */
function memberName(node, group, root) {
  const id = node.workflow_id === root ? "" : shortenId(node.workflow_id ?? "", 24, root);
  const number = node.number === undefined ? "" : `#${node.number}`;
  const isNamed = node.kind !== "workflow" && node.name !== group.name;
  return [isNamed && leafName(node.name), id, number].filter(Boolean).join(" ");
}

/**
 * @param {RunningDetails} found
 * @param {PanelOptions} options
 * @returns {Child}
 */
function runningParts(found, options) {
  return [
    heading("PENDING", "running", found.name, options),
    el("p", { class: "dn-note" }, "A step is recorded when it finishes. Which step runs now can only be "
      + "inferred from those that have finished."),
  ];
}

/**
 * @param {Key} key
 * @param {PanelOptions} options
 */
function codeButton(key, options) {
  return copyButton("Copy code", "Copy the Python code of this node", () => options.code(key));
}

/**
 * The payloads as they are stored, read when they are first shown.
 * @param {Key} key
 * @param {PanelOptions} options
 */
function rawSection(key, options) {
  const box = el("div");
  const section = el("details", { class: "dn-raw" }, el("summary", {}, "Stored payloads"), box);
  section.addEventListener("toggle", async () => {
    if (!section.open || box.firstChild) return;
    const payloads = await options.raw(key);
    if (!payloads) return;
    append(box, payloads.map((payload) => [
      el("p", { class: "dn-note" },
        `${payload.name}: ${payload.format}, ${formatCount(payload.length)} characters`),
      el("pre", { tabindex: "0" }, payload.text),
    ]), !payloads.length && el("p", { class: "dn-note" }, "No payload is stored."));
  });
  return section;
}

/**
 * The differences of two runs, as lines that lead to the picture.
 * @param {ComparisonAnswer} found
 * @param {(row: ComparedRow) => unknown} onChoose
 * @param {() => unknown} onClose
 */
export function comparisonPanel(found, onChoose, onClose) {
  const counts = Object.entries(found.counts)
    .map(([difference, count]) => `${formatCount(count)} ${describe(difference)}`).join(", ");
  const rows = found.rows.map((row) => el("tbody", {},
    el("tr", {}, el("th", { scope: "rowgroup", colspan: "2" },
      linkButton(comparedName(row), `Show both sides of ${row.name ?? "?"}`, () => onChoose(row)), " ",
      el("span", { class: "dn-difference", "data-difference": row.difference }, describe(row.difference)))),
    el("tr", {},
      el("td", {}, row.first === undefined ? "–" : side(row.status_first, row.error_type_first,
        row.took_first ?? formatDuration(row.duration_first))),
      el("td", {}, row.second === undefined ? "–" : side(row.status_second, row.error_type_second,
        row.took_second ?? formatDuration(row.duration_second))))));
  return el("div", { class: "dn-node-details" },
    el("header", {}, el("h3", { tabindex: "-1" }, "Differences"), el("span", { class: "dn-space" }),
      closeButton("Close the comparison", "Close the comparison (Escape)", onClose)),
    el("p", { class: "dn-note" }, counts),
    rows.length > 0 && el("table", { class: "dn-differences" },
      el("thead", {}, el("tr", {}, ["original", "fork"].map((name) =>
        el("th", { scope: "col" }, name)))),
      rows),
    found.left_out > 0
      && el("p", { class: "dn-note" }, `… and ${formatCount(found.left_out)} more`));
}

/** @param {ComparedRow} row */
function comparedName(row) {
  const key = row.second ?? row.first;
  const number = Array.isArray(key) && typeof key[1] === "number" ? ` #${key[1]}` : "";
  return `${leafName(row.name ?? "?")}${number}`;
}

/**
 * @param {string | undefined} status
 * @param {string | undefined} errorType
 * @param {string} took
 * @returns {Child}
 */
function side(status, errorType, took) {
  return [status && statusIcon(status), " ", errorType ? shortClassName(errorType) : took];
}

/** @param {string} difference */
function describe(difference) {
  return difference.replace("only in first", "only in the original")
    .replace("only in second", "only in the fork");
}
