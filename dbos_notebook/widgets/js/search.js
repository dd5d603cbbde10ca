// Searches one run for a step, an ID or an error.
import { el, replace } from "./dom.js";
import { formatCount, leafName, shortClassName, shortenId } from "./format.js";
import { statusIcon } from "./status.js";
/** @import {Answer, GraphNode, Key} from "./types.js" */

/**
 * @typedef {object} SearchOptions
 * @property {() => string} id the workflow that is shown
 * @property {(callback: () => unknown) => void} later calls back once typing has paused
 * @property {(text: string) => Promise<Answer<"search"> | null>} ask
 * @property {(key: Key) => unknown} go shows a node
 * @property {(nodes: readonly GraphNode[]) => unknown} highlight
 * @property {(node: GraphNode) => boolean} isSelected
 * @property {(text: string) => boolean} filter filters the table instead, if that is shown
 */

const MOST_SHOWN = 12;
const MAX_ID = 24;

export class Search {
  /** @param {SearchOptions} options */
  constructor(options) {
    this.options = options;
    /** @type {readonly GraphNode[]} */
    this.results = [];
    this.input = el("input", { type: "search", class: "dn-search", spellcheck: "false",
      placeholder: "Find a step, ID or error", "aria-label": "Find in this run",
      role: "combobox", "aria-expanded": "false" });
    this.list = el("ul", { class: "dn-search-results", hidden: true, "aria-label": "Search results" });
    this.node = el("span", { class: "dn-search-box" }, this.input, this.list);
    this.input.addEventListener("input", () => options.later(() => this.search()));
    this.input.addEventListener("keydown", (event) => this.onInputKey(event));
    this.list.addEventListener("keydown", (event) => this.onListKey(event));
    this.node.addEventListener("focusout", (event) => {
      const next = event.relatedTarget;
      if (!(next instanceof Node && this.node.contains(next))) this.setOpen(false);
    });
  }

  get text() {
    return this.input.value;
  }

  get isOpen() {
    return !this.list.hidden;
  }

  /** @param {boolean} isOpen */
  setOpen(isOpen) {
    this.list.hidden = !isOpen;
    this.input.setAttribute("aria-expanded", String(isOpen));
  }

  close() {
    this.setOpen(false);
    this.results = [];
    this.options.highlight([]);
  }

  async search() {
    const text = this.text.trim();
    if (this.options.filter(text)) return;
    if (!text) {
      this.close();
      return;
    }
    const answer = await this.options.ask(text);
    if (!answer || this.text.trim() !== text) return;
    this.results = answer.found;
    this.options.highlight(this.results);
    replace(this.list, this.results.slice(0, MOST_SHOWN).map((node) => this.line(node)),
      el("li", { class: "dn-note", role: "status" },
        answer.count ? `${formatCount(answer.count)} found` : "No match in this run."));
    this.setOpen(true);
  }

  /** @param {GraphNode} node */
  line(node) {
    const isOwn = node.workflow_id === this.options.id();
    const id = shortenId(node.workflow_id ?? "", MAX_ID, this.options.id());
    const place = node.kind === "workflow" ? id : `#${node.number ?? ""} ${isOwn ? "" : id}`;
    const choose = () => {
      this.options.go(node.key);
      this.setOpen(false);
    };
    return el("li", {}, el("button", { type: "button", title: `${node.name} ${node.workflow_id ?? ""}`, on: { click: choose } },
      statusIcon(node.status), el("b", {}, leafName(node.name) || "workflow"),
      el("span", { class: "dn-muted" }, place),
      node.error && el("span", { class: "dn-error-line" }, shortClassName(node.error))));
  }

  /**
   * Enter goes from one result to the next.
   * @param {KeyboardEvent} event
   */
  onInputKey(event) {
    if (event.key === "Enter" && this.results.length) {
      const { length } = this.results;
      const index = this.results.findIndex((node) => this.options.isSelected(node));
      const next = this.results[(index + (event.shiftKey ? -1 : 1) + length) % length];
      if (next) this.options.go(next.key);
    } else if (event.key === "ArrowDown") {
      this.list.querySelector("button")?.focus();
    } else return;
    event.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  onListKey(event) {
    const offset = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!offset || !(event.target instanceof HTMLButtonElement)) return;
    const buttons = [...this.list.querySelectorAll("button")];
    (buttons[buttons.indexOf(event.target) + offset] ?? this.input).focus();
    event.preventDefault();
  }
}
