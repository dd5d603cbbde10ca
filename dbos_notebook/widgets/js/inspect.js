// One workflow: what it is, its graph and timeline, what each step did, and what can be done.
import { copy, el, followTheme, put, replace } from "./dom.js";
import { place } from "./fallback.js";
import { count, exact, span } from "./format.js";
import { Link } from "./kernel_channel.js";
import { Live } from "./polling.js";
import { State } from "./status_line.js";
import { Actions } from "./actions.js";
import { Canvas } from "./svg_view.js";
import { Finder } from "./search.js";
import { Comparison } from "./comparison.js";
import { nodePanel } from "./node_panel.js";
import { button, runHead } from "./run_header.js";
import { shortType } from "./details.js";
import { stepTable } from "./step_table.js";

const LOOK = 1000;
const CALM = 5000;
const BUSY_SHARE = 12;
const CLOCK = 1000;
const TYPED = 150;
const FITTING = 120;
const GROWN = 5000; // a timeline of what still runs is drawn anew after this, though nothing else changed
const TABS = [["graph", "Graph"], ["timeline", "Timeline"], ["steps", "Steps"]];

class Inspect {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.start = model.get("_start");
    this.offline = Boolean(this.start.offline);
    this.state = new State(() => this.refresh(), () => this.said());
    this.link = new Link(model, this.state);
    this.id = model.get("workflow_id");
    this.tab = this.start.tab;
    this.options = { open: [], hide: false, critical: false, direction: "auto" };
    this.trail = [];
    this.comparison = new Comparison(this);
    this.calm = 0;
    this.live = new Live(root, model, {
      now: () => this.now(),
      clock: CLOCK,
      wait: () => this.pause(),
      ready: () => this.link.idle("show") && !this.comparison.pair,
      // What has all ended changes no more, unless something is done to it.
      ended: () => !this.active && this.facts !== undefined,
      ask: () => this.askAgain(),
      shown: () => this.showLive(),
    });
    this.finder = new Finder({
      id: () => this.id,
      later: (act) => this.live.later("typing", TYPED, act),
      ask: (text) => this.try(this.link.ask("search", { id: this.id, text })),
      go: (key) => this.go(key),
      mark: (nodes) => this.canvas.mark((nodes ?? []).map((node) => node.ref)),
      isSelected: (node) => node.ref === this.selectedRef(),
      filter: () => this.tab === "steps" && (this.showList(), true),
    });
    this.build();
    const sight = new ResizeObserver(() => this.fitted());
    sight.observe(this.picture);
    this.endings = [followTheme(root), this.follow(), () => sight.disconnect()];
    this.load({ first: true });
  }

  now() {
    return this.state.now();
  }

  try(answer) {
    return this.state.try(answer);
  }

  // --- what stands there ---------------------------------------------------------------------

  build() {
    this.head = el("header", { class: "dn-run" });
    this.canvas = new Canvas({
      choose: (node) => this.choose(node),
      label: (node) => [node.count && `${count(node.count)} ${node.levels ? "levels" : "times"}`, node.name, node.status,
        node.error && shortType(node.error), node.took ?? span(node.duration)].filter(Boolean).join(", "),
    });
    this.tabs = el("div", { class: "dn-tabs", role: "tablist", "aria-label": "View" });
    this.failures = el("span", { class: "dn-group dn-failures", hidden: true, role: "group",
      "aria-label": "Failures" });
    this.sizes = this.canvas.buttons();
    this.tools = el("span", { class: "dn-group", role: "group", "aria-label": "Picture" });
    this.strip = el("div", { class: "dn-strip", hidden: true });
    this.panel = el("aside", { class: "dn-side", hidden: true, "aria-label": "Details" });
    this.listing = el("div", { class: "dn-listing", hidden: true });
    this.hint = el("span", { class: "dn-quiet dn-hint" },
      "drag to move · Ctrl + wheel to zoom · arrows walk along the lines");
    const ask = (kind, question, lane) => this.try(this.link.ask(kind, question, lane));
    const made = () => new Actions(this.start.forbidden, ask, (receipt) => this.acted(receipt),
      (id) => this.openRun(id));
    this.actions = made();
    this.nodeActions = made();
    this.picture = el("div", { class: "dn-picture", role: "tabpanel" }, this.canvas.frame,
      el("div", { class: "dn-under" }, this.canvas.legend));
    put(this.root, this.head,
      this.state.banner, this.actions.panel, this.nodeActions.panel, this.strip,
      el("div", { class: "dn-bar2" }, this.tabs, this.failures, this.finder.node,
        el("span", { class: "dn-space" }), this.tools, this.sizes),
      el("div", { class: "dn-body" }, this.picture, this.listing, this.panel),
      el("div", { class: "dn-end" }, this.state.line, el("span", { class: "dn-space" }), this.hint));
    this.listen();
    this.showTabs();
    this.showTools();
    this.showLive();
  }

  showTabs() {
    replace(this.tabs, TABS.map(([name, label]) => el("button", {
      type: "button", role: "tab", "aria-selected": String(this.tab === name),
      tabindex: this.tab === name ? "0" : "-1",
      on: { click: () => this.turnTo(name) },
    }, label)));
    const pictured = this.tab !== "steps";
    this.picture.hidden = !pictured;
    this.picture.setAttribute("aria-label", TABS.find(([name]) => name === this.tab)[1]);
    this.listing.hidden = pictured;
    this.tools.hidden = !pictured;
    this.sizes.hidden = !pictured;
    this.hint.hidden = !pictured;
    this.root.dataset.tab = this.tab;
  }

  showTools() {
    if (this.offline) return;
    const toggle = (key, label, title, on, off) => el("button", { type: "button",
      class: "dn-button", title, "aria-pressed": String(this.options[key] === on),
      on: { click: () => this.change({ [key]: this.options[key] === on ? off : on }) } }, label);
    replace(this.tools,
      this.options.open.length > 0 && button("Fold all", "Fold what was opened",
        () => this.change({ open: [] })),
      toggle("critical", "Critical path", "Mark what determined the end", true, false),
      toggle("hide", "Bookkeeping", "Show DBOS's own steps: events, sleeps, results", false, true),
      this.tab === "graph" && !this.comparison.pair
        && toggle("direction", "↓", "Let time run down", "TB", "auto"));
  }

  showLive() {
    const { button: live } = this.live;
    live.title = !this.active
      ? "All of it has ended: there is nothing to wait for"
      : this.live.on() ? "It is asked for changes while this is seen"
        : "Ask for changes while this is seen";
    live.toggleAttribute("data-idle", !this.active);
    this.state.show();
  }

  // What stands where else it says when it was read.
  said() {
    if (this.offline) return `as of ${exact(this.state.at)}`;
    return this.active && this.live.on() && !this.comparison.pair ? "live" : null;
  }

  showHead() {
    const acting = !this.start.read_only && !this.offline;
    replace(this.head, runHead(this.facts, {
      now: () => this.now(),
      before: this.trail.at(-1),
      offline: this.offline,
      live: this.live.button,
      actions: acting ? this.actions.bar : null,
      forbidden: this.start.forbidden,
      back: () => this.back(),
      refresh: () => this.refresh(),
      copyCode: () => this.copyCode(),
      openRun: (id) => this.openRun(id),
      compare: (first, second) => this.comparison.show(first, second),
    }));
  }

  showFailures() {
    const { failures, more_failures: more } = this.facts;
    this.failures.hidden = !failures.length;
    const total = failures.length + more;
    const at = failures.findIndex((node) => node.ref === this.selectedRef());
    replace(this.failures,
      button("‹", "Failure before (Shift + F)", () => this.step(-1), { "aria-label": "Failure before" }),
      el("button", { type: "button", class: "dn-button dn-bad", title: "Show it (F)",
        on: { click: () => (at < 0 ? this.step(1) : this.go(failures[at].key)) } },
      at < 0 ? `${count(total)} ${total === 1 ? "failure" : "failures"}` : `${at + 1} of ${count(total)}`),
      button("›", "Next failure (F)", () => this.step(1), { "aria-label": "Next failure" }));
  }

  step(by) {
    const { failures } = this.facts;
    if (!failures.length) return;
    const at = failures.findIndex((node) => node.ref === this.selectedRef());
    const next = at < 0 ? (by > 0 ? 0 : failures.length - 1)
      : (at + by + failures.length) % failures.length;
    this.go(failures[next].key);
  }

  // --- asking --------------------------------------------------------------------------------

  view() {
    return { ...this.options, picture: this.tab === "timeline" ? "timeline" : "graph",
      room: this.room() };
  }

  // In which a timeline is drawn; a graph only takes its direction from it.
  room() {
    const [wide, by] = this.tab === "timeline" ? [this.picture.clientWidth, 20]
      : [this.root.clientWidth, 100];
    return Math.round(wide / by) * by;
  }

  async load({ anew = false, first = false, stamp = null } = {}) {
    const id = this.id;
    const answer = await this.try(this.link.ask("show", { id, view: this.view(), anew, stamp }));
    if (!answer || id !== this.id) return null;
    this.active = answer.active;
    this.state.read(answer);
    this.showLive();
    if (answer.same) return answer;
    this.stamp = answer.stamp;
    this.facts = answer.facts;
    this.showHead();
    this.showPicture(answer.picture);
    this.showFailures();
    if (!this.offline) this.actions.about([id], `${answer.facts.row.status} ${answer.facts.forks.length} ${this.stamp}`);
    if (this.tab === "steps") this.list();
    const selected = this.selected();
    if (selected && (first || anew)) this.tell(selected, { quiet: !first, look: first });
    else if (first && this.facts.row.status === "ERROR") this.lookAtFailure();
    return answer;
  }

  lookAtFailure() {
    const ref = this.facts.failures[0]?.ref;
    const part = ref && this.canvas.parts.get(ref);
    if (part && this.canvas.frame.dataset.movable === "true") this.canvas.lookAt(part);
  }

  showPicture(picture) {
    if (this.comparison.pair) return;
    this.drawn = picture;
    this.drawnIn = this.room();
    this.drawnAt = this.now();
    this.canvas.show(picture, `${this.tab === "timeline" ? "Timeline" : "Graph"} of `
      + `${this.facts.row.name ?? "the workflow"}; arrow keys walk, Enter opens`,
    this.tab === "timeline");
    this.canvas.select(this.selectedRef());
    this.showTools();
    this.fade();
  }

  change(part) {
    Object.assign(this.options, part);
    this.showTools();
    if (this.comparison.pair) return this.comparison.again();
    this.changing = this.load();
    return this.changing;
  }

  async turnTo(tab) {
    if (tab === this.tab && !this.comparison.pair) return;
    if (this.comparison.pair) this.comparison.end(false);
    this.tab = tab;
    this.canvas.scale = null;
    this.showTabs();
    this.showTools();
    this.tabs.querySelector("[aria-selected=true]").focus();
    await (tab === "steps" ? this.list() : this.load());
    this.canvas.select(this.selectedRef(), true);
  }

  async refresh() {
    this.live.touch();
    this.calm = 0;
    if (this.comparison.pair) return this.comparison.again(true);
    return this.load({ anew: true });
  }

  async list() {
    const answer = await this.try(this.link.ask("list", { id: this.id }));
    if (!answer) return;
    this.rows = answer;
    this.showList();
  }

  showList() {
    if (!this.rows) return;
    replace(this.listing, stepTable(this.rows, {
      text: this.finder.text, root: this.id, selected: this.selectedRef(),
      choose: (node) => this.choose(node),
    }));
  }

  // --- going -----------------------------------------------------------------------------------

  selected() {
    const key = this.model.get("_selected");
    return key.length ? (key.length === 1 ? key[0] : key) : null;
  }

  selectedRef() {
    const key = JSON.stringify(this.selected());
    if (key === "null") return null;
    const all = [...(this.drawn?.nodes ?? []), ...(this.facts?.failures ?? []),
      ...(this.rows?.rows ?? []), ...(this.finder.heard ?? [])];
    return all.find((node) => JSON.stringify(node.key) === key)?.ref ?? null;
  }

  set(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  remember(key) {
    const plain = key === null ? [] : Array.isArray(key) ? key : [key];
    if (JSON.stringify(plain) === JSON.stringify(this.model.get("_selected"))) return;
    this.own = true;
    this.set("_selected", plain);
    this.own = false;
  }

  // A click on a node.
  choose(node) {
    if (this.comparison.pair) return this.comparison.go(node);
    this.remember(node.key);
    this.canvas.select(node.ref);
    this.showFailures();
    if (node.kind === "group") this.openGroup(node.group);
    return this.tell(node.key);
  }

  async openGroup(name) {
    if (this.options.open.includes(name)) return;
    await this.change({ open: [...this.options.open, name] });
  }

  async foldGroup(name) {
    await this.change({ open: this.options.open.filter((other) => other !== name) });
    this.tell(this.selected(), { quiet: true });
  }

  // To a node, wherever it is: what hides it is opened.
  async go(key) {
    if (this.comparison.pair) this.comparison.end(false);
    // Whether it is hidden is told by the picture that was asked for, and not by the one before.
    await this.changing;
    this.remember(key);
    let ref = this.selectedRef();
    if (this.tab !== "steps" && !(ref && this.canvas.has(ref))) {
      const answer = await this.try(this.link.ask("reveal",
        { id: this.id, view: this.view(), key }));
      if (answer) {
        this.options.open = answer.open;
        this.showPicture(answer.picture);
        ref = this.selectedRef();
      }
    }
    this.canvas.select(ref, true);
    this.showFailures();
    if (this.tab === "steps") this.showList();
    return this.tell(key);
  }

  async tell(key, { quiet = false, look = false } = {}) {
    const text = JSON.stringify(key);
    const found = await this.try(this.link.ask("node",
      { id: this.id, key, view: { ...this.view(), open: this.withoutGroup(key) } }));
    if (!found || JSON.stringify(this.selected()) !== text) return;
    if (quiet && this.panel.hidden) return;
    if (look) this.canvas.select(this.selectedRef(), true);
    const told = nodePanel(found, this.doing(found));
    // What is read again while it is looked at must not jump.
    const { scrollTop } = this.panel;
    if (quiet && told.textContent === this.panel.firstChild?.textContent) return;
    replace(this.panel, told);
    if (quiet) this.panel.scrollTop = scrollTop;
    this.panel.hidden = false;
    if (found.kind === "workflow" && found.row.id !== this.id && !this.start.read_only) {
      this.nodeActions.about([found.row.id], found.row.status);
    }
  }

  withoutGroup(key) {
    return Array.isArray(key) && key[0] === "group"
      ? this.options.open.filter((name) => name !== key[1]) : this.options.open;
  }

  doing(found) {
    const shown = found.kind === "workflow" && !this.start.read_only ? this.nodeActions.bar : null;
    return {
      now: () => this.now(),
      root: this.id,
      offline: this.offline,
      forbidden: this.start.forbidden,
      mayFork: !this.start.read_only && !this.offline,
      actions: shown,
      copy,
      find: (id) => this.openRun(id),
      go: (key) => this.go(key),
      openRun: (id) => (id === this.id || this.offline ? this.go(id) : this.openRun(id)),
      isOpen: (name) => this.options.open.includes(name),
      openGroup: (name) => this.openGroup(name).then(() => this.tell(this.selected())),
      foldGroup: (name) => this.foldGroup(name),
      fork: (id, number) => {
        this.nodeActions.ids = [id];
        return this.nodeActions.begin("fork", { start_step: String(number) });
      },
      raw: (key) => this.try(this.link.ask("raw", { key })).then((answer) => answer?.payloads),
      code: (key) => this.try(this.link.ask("code", { id: this.id, key }))
        .then((answer) => answer?.text ?? null),
      close: () => this.closePanel(),
    };
  }

  closePanel(focus = true) {
    const ref = this.selectedRef();
    this.panel.hidden = true;
    this.panel.replaceChildren();
    this.remember(null);
    this.canvas.select(null);
    this.showFailures();
    if (focus) this.canvas.parts.get(ref)?.focus({ preventScroll: true });
  }

  openRun(id) {
    if (id === this.id) return this.comparison.pair ? this.comparison.end() : null;
    this.trail.push(this.id);
    return this.show(id);
  }

  back() {
    return this.trail.length ? this.show(this.trail.pop()) : null;
  }

  async show(id) {
    this.id = id;
    if (this.comparison.pair) this.comparison.end(false);
    this.options.open = [];
    this.stamp = null;
    this.rows = null;
    this.calm = 0;
    this.live.touch();
    this.closePanel(false);
    this.actions.close();
    this.nodeActions.close();
    this.finder.close();
    this.own = true;
    this.set("workflow_id", id);
    this.own = false;
    const answer = await this.load({ anew: true, first: true });
    if (answer) this.live.again();
  }

  // After something was written: what it did is seen here.
  async acted(receipt) {
    this.calm = 0;
    const made = receipt?.rows.find((row) => row.new_workflow_id
      && (row.outcome === "done" || row.outcome === "unchanged"));
    if (made) await this.followFork(made);
    else await this.load({ anew: true });
    this.live.again();
  }

  async followFork(made) {
    const told = this.nodeActions.panel.hidden ? this.actions : this.nodeActions;
    const kept = [...told.panel.childNodes];
    const held = told.isHeld();
    await this.openRun(made.new_workflow_id);
    // The receipt stays until it is closed.
    put(told.panel, kept);
    told.panel.hidden = false;
    if (held) told.read();
  }

  async copyCode() {
    const answer = await this.try(this.link.ask("code", { id: this.id, key: this.selected() }));
    if (!answer) return;
    const copied = await copy(answer.text);
    replace(this.strip, el("code", {}, answer.text),
      el("span", { class: "dn-note" }, copied ? "copied" : "select it, and copy"),
      el("span", { class: "dn-space" }),
      button("×", "Close", () => (this.strip.hidden = true), { "aria-label": "Close" }));
    this.strip.hidden = false;
  }

  // --- by keyboard and along the time ------------------------------------------------------------

  listen() {
    this.tabs.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      const at = TABS.findIndex(([name]) => name === this.tab);
      this.turnTo(TABS[(at + by + TABS.length) % TABS.length][0]);
      event.preventDefault();
    });
    this.root.addEventListener("keydown", (event) => {
      const typing = event.target.closest?.("input, select, textarea");
      if (event.key === "Escape") {
        if (this.finder.isOpen) this.finder.close();
        else if (this.comparison.pair) this.comparison.end();
        else if (!this.panel.hidden) this.closePanel();
        else return;
        event.preventDefault();
      } else if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      else if (event.key === "/") {
        this.finder.input.focus();
        event.preventDefault();
      } else if (event.key === "f" || event.key === "F") {
        this.step(event.shiftKey ? -1 : 1);
        event.preventDefault();
      }
    });
  }

  // A timeline is drawn anew where there is more or less room for it than there was.
  fitted() {
    const fits = () => this.tab !== "timeline" || this.comparison.pair || this.offline || !this.drawn
      || !this.picture.clientWidth || this.drawnIn === this.room();
    if (!fits()) this.live.later("fitting", FITTING, () => fits() || this.change({}));
  }

  fade() {
    if (this.finder.heard) this.canvas.mark(this.finder.heard.map((node) => node.ref));
  }

  // At most once a second; the longer nothing has changed, the less often.
  pause() {
    return Math.max(this.calm > 30 ? CALM : LOOK, BUSY_SHARE * (this.state.took ?? 0));
  }

  async askAgain() {
    const before = this.stamp;
    const grown = this.tab === "timeline" && this.now() - this.drawnAt > GROWN;
    await this.load({ anew: true, stamp: grown ? null : before });
    this.calm = before === this.stamp ? this.calm + 1 : 0;
  }

  // What Python changes is followed.
  follow() {
    const chosen = () => {
      if (this.own) return;
      const key = this.selected();
      if (key === null) this.closePanel();
      else this.go(key);
    };
    const moved = () => {
      if (!this.own && this.model.get("workflow_id") !== this.id) {
        this.trail.push(this.id);
        this.show(this.model.get("workflow_id"));
      }
    };
    const switched = () => (this.calm = 0);
    const heard = { "change:_selected": chosen, "change:workflow_id": moved,
      "change:live": switched };
    for (const [event, act] of Object.entries(heard)) this.model.on(event, act);
    return () => {
      for (const [event, act] of Object.entries(heard)) this.model.off(event, act);
    };
  }

  close() {
    this.link.close();
    this.live.close();
    this.state.close();
    this.canvas.close();
    for (const end of this.endings) end();
  }
}

export function render({ model, el: host }) {
  // JupyterLab's own shortcuts stay out of what is typed and walked through here.
  const root = el("div", { class: "dn-view dn-inspect", "data-lm-suppress-shortcuts": "true" });
  const end = place(root, host, model);
  const inspect = new Inspect(model, root);
  return () => {
    end();
    inspect.close();
  };
}

export default { render };
