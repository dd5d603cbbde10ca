// Finding a step, an ID or an error in one run: what is typed, and what was found.
import { el, replace } from "./dom.js";
import { count, statusIcon } from "./format.js";
import { shortType } from "./details.js";

const MOST = 12;

export class Finder {
  // later(act): soon, and only the latest. ask(text): an answer or null. go(key): shows a node.
  // mark(nodes or null): marks them in the picture. isSelected(node). id(): the run.
  // filter(text): where a list is shown, which is narrowed instead; true: it was.
  constructor(doing) {
    this.doing = doing;
    this.heard = null;
    this.input = el("input", { type: "search", class: "dn-search", spellcheck: "false",
      placeholder: "Find a step, ID or error", "aria-label": "Find in this run",
      role: "combobox", "aria-expanded": "false" });
    this.list = el("ul", { class: "dn-found", hidden: true, "aria-label": "Found" });
    this.node = el("span", { class: "dn-finder" }, this.input, this.list);
    this.input.addEventListener("input", () => doing.later(() => this.typed()));
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("keydown", (event) => this.walk(event));
    this.node.addEventListener("focusout", (event) => {
      if (!this.node.contains(event.relatedTarget)) this.show(false);
    });
  }

  get text() {
    return this.input.value;
  }

  get isOpen() {
    return !this.list.hidden;
  }

  show(open) {
    this.list.hidden = !open;
    this.input.setAttribute("aria-expanded", String(open));
  }

  close() {
    this.show(false);
    this.heard = null;
    this.doing.mark(null);
  }

  async typed() {
    const text = this.text.trim();
    if (this.doing.filter(text)) return;
    if (!text) {
      this.close();
      return;
    }
    const answer = await this.doing.ask(text);
    if (!answer || this.text.trim() !== text) return;
    this.heard = answer.found;
    this.doing.mark(this.heard);
    replace(this.list, this.heard.slice(0, MOST).map((node) => this.line(node)),
      el("li", { class: "dn-note", role: "status" }, answer.count ? `${count(answer.count)} found`
        : "Nothing of this run holds that."));
    this.show(true);
  }

  line(node) {
    const where = node.kind === "workflow" ? node.workflow_id
      : `#${node.number ?? ""} ${node.workflow_id === this.doing.id() ? "" : node.workflow_id}`;
    return el("li", {}, el("button", { type: "button", on: { click: () => {
      this.doing.go(node.key);
      this.show(false);
    } } }, statusIcon(node.status), el("b", {}, node.name || "workflow"),
    el("span", { class: "dn-quiet" }, where),
    node.error && el("span", { class: "dn-why" }, shortType(node.error))));
  }

  // Enter goes from one that was found to the next.
  key(event) {
    if (event.key === "Enter" && this.heard?.length) {
      const at = this.heard.findIndex((node) => this.doing.isSelected(node));
      const by = event.shiftKey ? -1 : 1;
      this.doing.go(this.heard[(at + by + this.heard.length) % this.heard.length].key);
      event.preventDefault();
    } else if (event.key === "ArrowDown") {
      this.list.querySelector("button")?.focus();
      event.preventDefault();
    }
  }

  walk(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    const buttons = [...this.list.querySelectorAll("button")];
    (buttons[buttons.indexOf(event.target) + by] ?? this.input).focus();
    event.preventDefault();
  }
}
