// All workflows and steps of a run as a table, of which a text chooses some.
import { el, put } from "./dom.js";
import { count, exact, span, statusIcon } from "./format.js";
import { shortType } from "./details.js";

const AT_ONCE = 300;

// doing: {text, root, selected, choose(node)}
export function stepTable(found, doing) {
  const wanted = doing.text.trim().toLowerCase();
  const rows = wanted ? found.rows.filter((node) => [node.name, node.workflow_id,
    node.number === undefined ? "" : `#${node.number}`, node.error, node.error_message]
    .some((part) => String(part ?? "").toLowerCase().includes(wanted))) : found.rows;
  const body = el("tbody");
  let shown = 0;
  const more = el("button", { type: "button", class: "dn-button", on: { click: () => add() } },
    "More");
  const add = () => {
    put(body, rows.slice(shown, shown + AT_ONCE).map((node) => line(node, doing)));
    shown = Math.min(rows.length, shown + AT_ONCE);
    more.hidden = shown >= rows.length;
  };
  add();
  const said = [`${count(rows.length)} ${wanted ? "found" : "workflows and steps"}`,
    found.left_out > 0 && `; the first ${count(found.rows.length)} of ${count(found.rows.length
      + found.left_out)}`];
  return [el("table", { class: "dn-steplist", "aria-label": "Workflows and steps" },
    el("thead", {}, el("tr", {}, [["status", "dn-unseen"], ["#", "n"], ["name"], ["workflow"],
      ["started"], ["took", "n"], ["error"]].map(([name, kind]) => el("th", { scope: "col",
      class: kind === "n" ? "n" : null }, kind === "dn-unseen"
      ? el("span", { class: kind }, name) : name)))), body),
  el("p", { class: "dn-note" }, said, " ", more)];
}

function line(node, doing) {
  const flow = node.kind === "workflow";
  const choose = () => doing.choose(node);
  const step = el("td", { class: "dn-step" }, node.name);
  step.style.paddingLeft = `${10 + 14 * Math.min(node.depth, 8)}px`;
  return el("tr", {
    tabindex: "0",
    "data-kind": node.kind,
    "aria-selected": String(node.ref === doing.selected),
    on: {
      click: (event) => {
        for (const other of event.currentTarget.parentNode.children) {
          other.setAttribute("aria-selected", String(other === event.currentTarget));
        }
        choose();
      },
      keydown: (event) => {
        const beside = { ArrowDown: "nextSibling", ArrowUp: "previousSibling" }[event.key];
        if (event.key === "Enter" || event.key === " ") event.currentTarget.click();
        else if (beside) event.currentTarget[beside]?.focus();
        else return;
        event.preventDefault();
      },
    },
  },
  el("td", {}, statusIcon(node.status)),
  el("td", { class: "n" }, node.number),
  step,
  el("td", {}, el("code", {}, flow || node.workflow_id !== doing.root ? node.workflow_id : "")),
  el("td", {}, node.started_at ?? node.created_at
    ? exact(node.started_at ?? node.created_at).slice(11, 23) : ""),
  el("td", { class: "n" }, node.took ?? span(node.duration)),
  el("td", { class: "dn-why" }, node.error && [el("b", {}, shortType(node.error)),
    node.error_message && ` ${node.error_message}`]));
}
