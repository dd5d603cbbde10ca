// One workflow: its picture, what is told of the part that was clicked, and what can be done.
import { copy, el, followTheme, put, replace } from "./dom.js";
import { Actions } from "./actions.js";
import { UNFINISHED, ago, chip, count, exact, span, statusIcon } from "./format.js";
import { Frame, picture } from "./picture.js";
import { Link } from "./link.js";
import { details, result } from "./details.js";

const LIVE = 2000;
const IDLE = 30 * 60 * 1000;
const TABS = [
  ["graph", "Graph", "What ran, in which order"],
  ["timeline", "Timeline", "When everything ran"],
  ["comparison", "Against the original", "What differs from the run that it was forked from"],
];

class Inspect {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.start = model.get("_start");
    this.link = new Link(model, (busy) => this.busy(busy));
    this.id = model.get("workflow_id");
    this.what = "graph";
    this.groups = [];
    this.before = []; // the workflows that were shown before this one
    this.nodes = {};
    this.seen = true;
    this.touched = Date.now();
    this.build();
    this.endings = [followTheme(root), this.watch()];
    this.show(this.id);
  }

  build() {
    this.title = el("span", { class: "dn-title" });
    this.back = this.button("←", "Back to the workflow before", () => this.show(this.before.pop(), true));
    this.tabs = el("div", { class: "dn-segments", role: "tablist", "aria-label": "Pictures" });
    this.find = el("input", { type: "search", class: "dn-search", placeholder: "Find a step",
      "aria-label": "Find a step", spellcheck: "false" });
    this.find.addEventListener("input", () => this.mark());
    this.find.addEventListener("keydown", (event) => event.key === "Enter" && this.next(this.marked()));
    this.failures = this.button("Next failure", "Go to the next part that failed", () =>
      this.next(this.elements().filter((one) => this.node(one).status === "ERROR")));
    this.banner = el("div", { class: "dn-banner", role: "alert", hidden: true });
    this.actions = new Actions(this.start.forbidden,
      (kind, question) => this.try(this.link.ask(kind, question)),
      (receipt) => this.acted(receipt), (id) => this.show(id));
    this.view = el("div", { class: "dn-picture", tabindex: "0", role: "group",
      "aria-label": "Picture: arrows move it, plus and minus zoom, 0 fits" });
    this.frame = new Frame(this.view, (element) => this.pick(element));
    this.panel = el("div", { class: "dn-part", role: "region", "aria-label": "Details" });
    this.state = el("span", { class: "dn-state", role: "status" });
    put(this.root,
      el("div", { class: "dn-top" }, this.back, this.title, el("span", { class: "dn-space" }),
        this.actions.bar),
      this.actions.panel, this.banner,
      el("div", { class: "dn-top" }, this.tabs, this.find, this.failures,
        el("span", { class: "dn-space" }), this.button("−", "Smaller", () => this.frame.zoom(0.8)),
        this.button("+", "Larger", () => this.frame.zoom(1.25)),
        this.button("Fit", "The whole picture", () => this.frame.fit()),
        this.button("Refresh", "Ask again now", () => this.refresh(true))),
      this.view,
      el("div", { class: "dn-foot" }, el("span", { class: "dn-note" },
        "drag to move, Ctrl and wheel to zoom, click a part for its details"),
        el("span", { class: "dn-space" }), this.state),
      this.panel);
    for (const event of ["pointerdown", "keydown", "wheel"]) {
      this.root.addEventListener(event, () => (this.touched = Date.now()), { passive: true });
    }
  }

  button(label, title, act) {
    return el("button", { type: "button", class: "dn-button", title, "aria-label": title,
      on: { click: act } }, label);
  }

  showTabs() {
    const offered = TABS.filter(([what]) => what !== "comparison" || this.row?.forked_from);
    replace(this.tabs, offered.map(([what, label, title]) => el("button", {
      type: "button", role: "tab", title, "aria-selected": String(what === this.what),
      "aria-pressed": String(what === this.what),
      on: { click: () => this.change(what) },
    }, label)));
    this.back.hidden = !this.before.length;
  }

  // --- asking --------------------------------------------------------------------------------

  show(id, back = false) {
    if (!back && id !== this.id) this.before.push(this.id);
    this.id = id;
    this.model.set("workflow_id", id);
    this.model.save_changes();
    this.groups = [];
    this.row = null;
    this.part = null;
    this.told = null;
    this.stamp = null;
    if (this.what === "comparison") this.what = "graph";
    this.actions.close();
    this.showTabs();
    return this.refresh(true);
  }

  change(what) {
    this.what = what;
    this.groups = [];
    this.showTabs();
    return this.draw(false);
  }

  async refresh(all = false) {
    await this.draw(!all || Boolean(this.stamp), all);
    await this.tell(all);
  }

  async draw(keep, anew = false) {
    const question = { id: this.id, what: this.what, theme: this.root.dataset.theme,
      open: this.groups, stamp: anew || !keep ? null : this.stamp };
    const answer = await this.try(this.link.ask("picture", question));
    if (!answer) return;
    this.banner.hidden = true;
    this.skew = answer.now - Date.now();
    this.readAt = answer.now;
    this.unfinished = answer.unfinished;
    this.showState();
    this.status = answer.status;
    if (answer.same) return;
    this.stamp = answer.stamp;
    this.took = answer.took;
    this.nodes = answer.nodes;
    this.frame.show(picture(answer.svg), keep);
    for (const element of this.elements()) element.classList.add("dn-node");
    this.failures.hidden = !Object.values(this.nodes).some((node) => node.status === "ERROR");
    this.mark();
    this.choose(this.part);
  }

  async tell(all = false) {
    const { id, step } = this.part ?? { id: this.id };
    const question = { id, step, stamp: all ? null : this.told?.stamp };
    const [found, own] = await Promise.all([
      this.try(this.link.ask("details", question, "details")),
      id === this.id ? null : this.try(this.link.ask("details", { id: this.id }, "own")),
    ]);
    if (!found) return;
    if (!found.same) {
      this.told = found;
      this.showPart(found, step);
    }
    const row = own?.row ?? (id === this.id ? found.row ?? this.row : this.row);
    if (row) this.showTitle(row);
  }

  showTitle(row) {
    this.row = row;
    replace(this.title, chip(row.status), el("b", {}, row.name ?? ""), el("code", {}, row.id));
    this.showTabs();
    this.actions.about([this.id], row.status);
  }

  showPart(found, step) {
    const now = Date.now() + (this.skew ?? 0);
    const doing = {
      find: (id) => this.show(id),
      copy,
      moreSteps: (after) => this.try(this.link.ask("steps", { id: found.row.id, after }, "steps")),
    };
    if (step === undefined || step === null) {
      const other = found.row.id !== this.id;
      replace(this.panel,
        other && el("div", { class: "dn-part-head" }, chip(found.row.status),
          el("b", {}, found.row.name), el("code", {}, found.row.id),
          this.button("Open", "Show this workflow here", () => this.show(found.row.id))),
        details(found, now, doing));
      return;
    }
    const told = found.steps.find((one) => one.number === step);
    if (!told) {
      replace(this.panel, el("p", { class: "dn-note" }, `Step ${step} is not recorded.`));
      return;
    }
    const took = told.completed_at !== undefined && told.started_at !== undefined
      ? told.completed_at - told.started_at : undefined;
    const facts = [["step", told.number], ["of", found.row.id],
      ["started", told.started_at === undefined ? "" : exact(told.started_at)],
      ["took", span(took)]];
    const fork = el("button", { type: "button", class: "dn-button dn-confirm",
      disabled: Boolean(this.start.forbidden) || UNFINISHED.includes(found.row.status),
      title: this.start.forbidden
        ?? (UNFINISHED.includes(found.row.status) ? "It has not finished: cancel it first"
          : `Start a new run of ${found.row.id} that runs again from this step`),
      on: { click: () => this.fork(found.row, told.number) } }, "Fork from here");
    replace(this.panel,
      el("div", { class: "dn-part-head" }, statusIcon(told.status), el("b", {}, told.name), fork,
        told.child && this.button("Open child", `Show ${told.child}`, () => this.show(told.child)),
        this.button("Workflow", "Details of the whole workflow", () => this.pickNode({ id: found.row.id }))),
      el("dl", { class: "dn-facts" }, facts.map(([name, value]) =>
        el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
      el("div", { class: "dn-details" }, el("section", {},
        el("h4", {}, told.status === "ERROR" ? "error" : "output"), result(told.result, true))));
  }

  async fork(row, step) {
    await this.actions.about([row.id], row.status);
    await this.actions.begin("fork", { start_step: String(step) });
  }

  // What was started opens here, and is followed while it runs.
  acted(receipt) {
    this.touched = Date.now();
    const made = receipt.rows.find((row) => row.workflow_id === this.id)?.new_workflow_id;
    const one = receipt.rows.length === 1 ? receipt.rows[0].new_workflow_id : null;
    if (!made && !one) this.refresh(true);
  }

  // --- parts of the picture ------------------------------------------------------------------

  elements() {
    return [...this.view.querySelectorAll("[data-node]")].filter((one) => this.nodes[one.id]);
  }

  node(element) {
    return this.nodes[element.id] ?? {};
  }

  pick(element) {
    this.view.focus({ preventScroll: true });
    if (element && this.nodes[element.id]) this.pickNode(this.nodes[element.id]);
  }

  pickNode(node) {
    if (node.group !== undefined) {
      this.groups.push(node.group);
      this.draw(true);
      return;
    }
    this.part = { id: node.id, step: node.step };
    this.told = null;
    this.choose(this.part);
    this.tell(true);
  }

  choose(part) {
    for (const element of this.elements()) {
      const node = this.node(element);
      const on = part && node.id === part.id && node.step === part.step;
      element.classList.toggle("dn-chosen", Boolean(on));
    }
  }

  marked() {
    const text = this.find.value.trim().toLowerCase();
    if (!text) return [];
    return this.elements().filter((one) => {
      const node = this.node(one);
      return `${node.name ?? ""} ${node.step ?? ""} ${node.id ?? ""}`.toLowerCase().includes(text);
    });
  }

  mark() {
    const found = this.marked();
    const some = Boolean(this.find.value.trim());
    for (const one of this.elements()) one.classList.toggle("dn-faint", some && !found.includes(one));
    this.find.title = some ? `${count(found.length)} found; Enter goes to the next` : "";
  }

  next(found) {
    if (!found.length) return;
    const at = found.findIndex((one) => one.classList.contains("dn-chosen"));
    const element = found[(at + 1) % found.length];
    this.frame.reveal(element);
    this.pickNode(this.node(element));
  }

  // --- what goes wrong, and along the time ---------------------------------------------------

  busy(busy) {
    this.isBusy = busy;
    this.showState();
  }

  showState() {
    if (!this.readAt) return;
    const read = `read ${ago(this.readAt, Date.now() + (this.skew ?? 0))}`;
    const follows = this.unfinished ? " · follows the run" : "";
    this.state.textContent = this.isBusy ? "the kernel is busy …" : read + follows;
  }

  failed(error) {
    replace(this.banner, el("b", {}, error.type ?? "Error"), el("span", {}, error.message),
      this.button("Try again", "Ask again now", () => this.refresh(true)));
    this.banner.hidden = false;
  }

  async try(answer) {
    try {
      return await answer;
    } catch (error) {
      this.failed(error);
      return null;
    }
  }

  isSeen() {
    return this.seen && document.visibilityState === "visible" && this.root.isConnected;
  }

  watch() {
    let timer;
    const tick = async () => {
      const idle = Date.now() - this.touched > IDLE;
      if (this.isSeen()) {
        this.showState();
        if (this.unfinished && !idle && this.link.idle("picture")) await this.refresh();
      }
      if (!this.closed) timer = setTimeout(tick, Math.max(LIVE, 10 * (this.took ?? 0)));
    };
    timer = setTimeout(tick, LIVE);
    const moved = () => {
      const id = this.model.get("workflow_id");
      if (id !== this.id) this.show(id);
    };
    this.model.on("change:workflow_id", moved);
    const seen = new IntersectionObserver((entries) => (this.seen = entries.at(-1).isIntersecting));
    seen.observe(this.root);
    // The picture has its colours from the kernel.
    const theme = new MutationObserver(() => this.draw(true, true));
    theme.observe(this.root, { attributes: true, attributeFilter: ["data-theme"] });
    return () => {
      this.closed = true;
      clearTimeout(timer);
      this.model.off("change:workflow_id", moved);
      seen.disconnect();
      theme.disconnect();
    };
  }

  close() {
    this.link.close();
    for (const end of this.endings) end();
  }
}

function render({ model, el: host }) {
  const root = el("div", { class: "dn-explore dn-inspect" });
  host.append(root);
  const inspect = new Inspect(model, root);
  return () => inspect.close();
}

export default { render };
