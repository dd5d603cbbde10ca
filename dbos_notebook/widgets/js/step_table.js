// All workflows and steps of a run as a table, filtered by a string.
import { append, button, el } from "./dom.js";
import { failedAt, formatCount, formatDuration, formatInstant, shortClassName, idLabel, breakableName } from "./format.js";
import { statusIcon } from "./status.js";
/** @import {ListedNode, NodeList} from "./types.js" */

/**
 * @typedef {object} StepTableOptions
 * @property {string} text
 * @property {string} root the workflow that is shown, whose ID is not repeated
 * @property {string | null} selected
 * @property {(node: ListedNode) => unknown} onChoose
 */

const PAGE_SIZE = 300;
const INDENT_PX = 14;
const MOST_LEVELS = 8;
/** @type {readonly [string, string?][]} */
const HEADINGS = [["status", "dn-visually-hidden"], ["#", "n"], ["name"], ["workflow"], ["started"],
  ["duration", "n"], ["error"]];

/**
 * @param {NodeList} list
 * @param {StepTableOptions} options
 */
export function stepTable(list, options) {
  const text = options.text.trim();
  const rows = text ? list.rows.filter((node) => contains(node, text)) : list.rows;
  const body = el("tbody");
  let shown = 0;
  const more = button("Show more", null, () => showMore());
  const showMore = () => {
    append(body, rows.slice(shown, shown + PAGE_SIZE).map((node) => line(node, options)));
    shown = Math.min(rows.length, shown + PAGE_SIZE);
    more.hidden = shown >= rows.length;
  };
  showMore();
  const total = list.rows.length + list.left_out;
  return [
    el("table", { class: "dn-step-table", "aria-label": "Workflows and steps" },
      el("thead", {}, el("tr", {}, HEADINGS.map(([name, kind]) => kind === "dn-visually-hidden"
        ? el("th", { scope: "col" }, el("span", { class: kind }, name))
        : el("th", { scope: "col", class: kind ?? null }, name)))),
      body),
    el("p", { class: "dn-note" },
      `${formatCount(rows.length)} ${text ? "found" : "workflows and steps"}`,
      list.left_out > 0
        && ` in the first ${formatCount(list.rows.length)} of ${formatCount(total)}`,
      " ", more),
  ];
}

/**
 * Whether a node's name, ID, number or error contains a string.
 * @param {ListedNode} node
 * @param {string} text
 */
export function contains(node, text) {
  const wanted = text.toLowerCase();
  const number = node.number === undefined ? "" : `#${node.number}`;
  return [node.name, node.workflow_id, number, node.error, node.error_message]
    .some((part) => (part ?? "").toLowerCase().includes(wanted));
}

/**
 * @param {ListedNode} node
 * @param {StepTableOptions} options
 */
function line(node, { root, selected, onChoose }) {
  const showsId = node.kind === "workflow" || node.workflow_id !== root;
  const begun = node.started_at ?? node.created_at;
  const name = el("td", { class: "dn-step", title: node.name },
    node.operation === "start_child" && "starts ", breakableName(node.name));
  name.style.paddingLeft = `${10 + INDENT_PX * Math.min(node.depth, MOST_LEVELS)}px`;
  const choose = () => {
    for (const other of made.parentNode?.children ?? []) {
      other.setAttribute("aria-selected", String(other === made));
    }
    onChoose(node);
  };
  const made = el("tr", {
    tabindex: "0",
    "data-kind": node.kind,
    "aria-selected": String(node.ref === selected),
    on: {
      click: choose,
      keydown: (event) => {
        const beside = event.key === "ArrowDown" ? made.nextSibling
          : event.key === "ArrowUp" ? made.previousSibling : null;
        if (event.key === "Enter" || event.key === " ") choose();
        else if (beside instanceof HTMLElement) beside.focus();
        else return;
        event.preventDefault();
      },
    },
  },
  el("td", {}, statusIcon(node.status)),
  el("td", { class: "n" }, node.number),
  name,
  el("td", {}, showsId && node.workflow_id && idLabel(node.workflow_id, root)),
  el("td", {}, begun !== undefined && formatInstant(begun).slice(11, node.in_seconds ? 19 : 23)),
  el("td", { class: "n" }, node.took ?? formatDuration(node.duration)),
  el("td", { class: "dn-error-line" }, node.error && [failedAt(node), el("b", {}, shortClassName(node.error)),
    node.error_message && ` ${node.error_message}`]));
  return made;
}
