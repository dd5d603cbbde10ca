// One workflow: what it is, its graph and timeline, what each step did, and what can be done.
import { copy, el, followTheme, icon, put, replace } from "./dom.js";
import { ago, chip, count, exact, span, statusIcon, UNFINISHED, when } from "./format.js";
import { Link } from "./link.js";
import { Actions } from "./actions.js";
import { Canvas } from "./canvas.js";
import { comparisonPanel, nodePanel } from "./nodepanel.js";
import { shortType } from "./details.js";
import { stepTable } from "./steptable.js";

const LOOK = 1000;
const CALM = 5000;
const BUSY_SHARE = 12;
const UNTOUCHED = 30 * 60 * 1000;
const TYPED = 150;
const TABS = [["graph", "Graph"], ["timeline", "Timeline"], ["steps", "Steps"]];
const COPY = "M5.5 5.5h8v8h-8zM3 10.5H2.5v-8h8V3";

class Inspect {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.start = model.get("_start");
    this.offline = Boolean(this.start.offline);
    this.link = new Link(model, (busy) => this.busy(busy));
    this.id = model.get("workflow_id");
    this.tab = this.start.tab;
    this.options = { open: [], hide: false, critical: false, direction: "auto" };
    this.trail = [];
    this.pair = null; // what is compared
    this.skew = 0;
    this.touched = Date.now();
    this.calm = 0;
    this.seen = true;
    this.timers = new Map();
    this.build();
    this.endings = [followTheme(root), this.watch()];
    this.load({ first: true });
  }

  now() {
    return Date.now() + this.skew;
  }

  // --- what stands there ---------------------------------------------------------------------

  build() {
    this.head = el("header", { class: "dn-run" });
    this.canvas = new Canvas({
      choose: (node) => this.choose(node),
      label: (node) => [node.count && `${count(node.count)} times`, node.name, node.status,
        node.error && shortType(node.error), span(node.duration)].filter(Boolean).join(", "),
    });
    this.tabs = el("div", { class: "dn-tabs", role: "tablist", "aria-label": "View" });
    this.search = el("input", { type: "search", class: "dn-search", spellcheck: "false",
      placeholder: "Find a step, ID or error", "aria-label": "Find in this run",
      role: "combobox", "aria-expanded": "false" });
    this.found = el("ul", { class: "dn-found", hidden: true, "aria-label": "Found" });
    this.failures = el("span", { class: "dn-group dn-failures", hidden: true, role: "group",
      "aria-label": "Failures" });
    this.sizes = this.canvas.buttons();
    this.tools = el("span", { class: "dn-group", role: "group", "aria-label": "Picture" });
    this.banner = el("div", { class: "dn-banner", role: "alert", hidden: true });
    this.strip = el("div", { class: "dn-strip", hidden: true });
    this.panel = el("aside", { class: "dn-side", hidden: true, "aria-label": "Details" });
    this.listing = el("div", { class: "dn-listing", hidden: true });
    this.state = el("span", { class: "dn-state", role: "status" });
    this.hint = el("span", { class: "dn-quiet dn-hint" },
      "drag to move · Ctrl + wheel to zoom · arrows walk along the lines");
    this.live = el("button", { type: "button", class: "dn-live", role: "switch",
      on: { click: () => this.set("live", !this.model.get("live")) } },
      el("i", { "aria-hidden": "true" }), "Live");
    const ask = (kind, question) => this.try(this.link.ask(kind, question));
    const made = () => new Actions(this.start.forbidden, ask, (receipt) => this.acted(receipt),
      (id) => this.openRun(id));
    this.actions = made();
    this.nodeActions = made();
    this.picture = el("div", { class: "dn-picture", role: "tabpanel" }, this.canvas.frame,
      el("div", { class: "dn-under" }, this.canvas.legend));
    put(this.root, this.head,
      this.banner, this.actions.panel, this.nodeActions.panel, this.strip,
      el("div", { class: "dn-bar2" }, this.tabs, this.failures,
        el("span", { class: "dn-finder" }, this.search, this.found),
        el("span", { class: "dn-space" }), this.tools, this.sizes),
      el("div", { class: "dn-body" }, this.picture, this.listing, this.panel),
      el("div", { class: "dn-end" }, this.state, el("span", { class: "dn-space" }), this.hint));
    this.listen();
    this.showTabs();
    this.showTools();
    this.showLive();
    if (this.offline) this.live.hidden = true;
  }

  button(label, title, act, more = {}) {
    return el("button", { type: "button", class: "dn-button", title, on: { click: act }, ...more },
      label);
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
      this.options.open.length > 0 && this.button("Fold all", "Fold what was opened",
        () => this.change({ open: [] })),
      toggle("critical", "Critical path", "Mark what determined the end", true, false),
      toggle("hide", "Bookkeeping", "Show DBOS's own steps: events, sleeps, results", false, true),
      this.tab === "graph" && !this.pair
        && toggle("direction", "↓", "Let time run down", "TB", "auto"));
  }

  showLive() {
    const on = this.model.get("live");
    this.live.setAttribute("aria-checked", String(on));
    this.live.title = !this.active
      ? "All of it has ended: there is nothing to wait for"
      : on ? "It is asked for changes while this is seen" : "Ask for changes while this is seen";
    this.live.toggleAttribute("data-idle", !this.active);
  }

  showHead() {
    const { row, forks } = this.facts;
    const now = this.now();
    const begun = row.dequeued_at ?? row.created_at;
    const took = UNFINISHED.includes(row.status)
      ? row.status === "PENDING" && el("span", { class: "dn-running", "data-since": begun },
        span(now - begun))
      : this.facts.took && `took ${this.facts.took}`;
    const fact = (...parts) => el("span", {}, parts);
    const copyId = el("button", { type: "button", class: "dn-button dn-tool", title: "Copy the ID",
      "aria-label": "Copy the ID", on: { click: async () => {
        copyId.toggleAttribute("data-done", await copy(row.id));
      } } }, icon(COPY));
    replace(this.head,
      el("div", { class: "dn-name-line" },
        this.trail.length > 0 && this.button("‹ Back", `Back to ${this.trail.at(-1)}`,
          () => this.back()),
        chip(row.status), el("h2", {}, row.name ?? "workflow"),
        el("code", { class: "dn-run-id", title: row.id }, row.id), copyId,
        el("span", { class: "dn-space" }), this.live,
        !this.offline && this.button("Refresh", "Ask again now", () => this.refresh()),
        !this.offline && this.button("Code", "Copy the Python that shows this", () => this.copyCode())),
      el("div", { class: "dn-fact-line" },
        took && fact(took),
        fact(row.status === "ENQUEUED" || row.status === "DELAYED" ? "created " : "began ",
          when(begun, now)),
        row.queue_name && fact("queue ", el("b", {}, row.queue_name)),
        row.app_version && fact("version ", el("b", {}, row.app_version)),
        row.recovery_attempts > 1 && fact("attempts ", el("b", {}, row.recovery_attempts)),
        row.parent_workflow_id && fact("child of ", this.runLink(row.parent_workflow_id)),
        row.forked_from && fact("fork of ", this.runLink(row.forked_from),
          this.compareButton(row.forked_from, row.id)),
        forks.length > 0 && fact(forks.length === 1 ? "forked as " : `${forks.length} forks: `,
          forks.slice(0, 6).map((fork) => el("span", { class: "dn-fork" }, statusIcon(fork.status),
            this.runLink(fork.id), this.compareButton(row.id, fork.id))),
          forks.length > 6 && " …"),
        fact(this.facts.counts)),
      row.error_type && el("p", { class: "dn-why" }, el("b", {}, shortType(row.error_type)),
        row.error_message && `: ${row.error_message}`),
      !this.start.read_only && !this.offline && el("div", { class: "dn-act-line" },
        this.actions.bar,
        this.start.forbidden && el("span", { class: "dn-note" }, this.start.forbidden)));
  }

  runLink(id) {
    if (this.offline) return el("code", {}, id);
    return el("button", { type: "button", class: "dn-link dn-cut", title: `Show ${id} here`,
      on: { click: () => this.openRun(id) } }, id);
  }

  compareButton(first, second) {
    if (this.offline) return null;
    return el("button", { type: "button", class: "dn-quiet", title: "Compare the two runs",
      on: { click: () => this.compare(first, second) } }, "compare");
  }

  showFailures() {
    const { failures, more_failures: more } = this.facts;
    this.failures.hidden = !failures.length;
    const total = failures.length + more;
    const at = failures.findIndex((node) => node.ref === this.selectedRef());
    replace(this.failures,
      this.button("‹", "Failure before (Shift + F)", () => this.step(-1), { "aria-label": "Failure before" }),
      el("button", { type: "button", class: "dn-button dn-bad", title: "Show it (F)",
        on: { click: () => (at < 0 ? this.step(1) : this.go(failures[at].key)) } },
      at < 0 ? `${count(total)} ${total === 1 ? "failure" : "failures"}` : `${at + 1} of ${count(total)}`),
      this.button("›", "Next failure (F)", () => this.step(1), { "aria-label": "Next failure" }));
  }

  step(by) {
    const { failures } = this.facts;
    if (!failures.length) return;
    const at = failures.findIndex((node) => node.ref === this.selectedRef());
    const next = at < 0 ? (by > 0 ? 0 : failures.length - 1)
      : (at + by + failures.length) % failures.length;
    this.go(failures[next].key);
  }

  showState() {
    if (!this.readAt) return;
    let text = this.isBusy ? "the kernel is busy …" : `read ${ago(this.readAt, this.now())}`;
    if (this.offline) text = `as of ${exact(this.readAt)}`;
    else if (this.active && this.model.get("live")) text = this.isBusy ? text : "live";
    if (this.state.textContent !== text) this.state.textContent = text;
    this.state.title = this.took === undefined ? "" : `${exact(this.readAt)}, in ${span(this.took)}`;
  }

  busy(busy) {
    this.isBusy = busy;
    this.readAt ??= this.now();
    this.showState();
  }

  failed(error) {
    replace(this.banner, el("b", {}, error.type ?? "Error"), el("span", {}, error.message),
      this.button("Try again", "Ask again now", () => this.refresh()),
      this.button("×", "Close", () => (this.banner.hidden = true), { "aria-label": "Close" }));
    this.banner.hidden = false;
  }

  async try(answer) {
    try {
      const found = await answer;
      return this.closed ? null : found;
    } catch (error) {
      if (!this.closed) this.failed(error);
      return null;
    }
  }

  // --- asking --------------------------------------------------------------------------------

  view() {
    return { ...this.options, picture: this.tab === "timeline" ? "timeline" : "graph",
      room: Math.round(this.root.clientWidth / 100) * 100 };
  }

  async load({ anew = false, first = false, stamp = null } = {}) {
    const id = this.id;
    const answer = await this.try(this.link.ask("show", { id, view: this.view(), anew, stamp }));
    if (!answer || id !== this.id) return null;
    this.banner.hidden = true;
    this.skew = answer.now - Date.now();
    this.readAt = answer.now;
    this.took = answer.took;
    const active = this.active;
    this.active = answer.active;
    if (active !== this.active) this.showLive();
    this.showState();
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
    if (this.pair) return;
    this.drawn = picture;
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
    if (this.pair) return this.compare(...this.pair);
    return this.load();
  }

  turnTo(tab) {
    if (tab === this.tab && !this.pair) return null;
    if (this.pair) this.endComparison(false);
    this.tab = tab;
    this.canvas.scale = null;
    this.showTabs();
    this.showTools();
    this.tabs.querySelector("[aria-selected=true]").focus();
    if (tab === "steps") return this.list();
    return this.load();
  }

  async refresh() {
    this.touched = Date.now();
    this.calm = 0;
    if (this.pair) return this.compare(...this.pair, true);
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
      text: this.search.value, root: this.id, selected: this.selectedRef(),
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
      ...(this.rows?.rows ?? []), ...(this.heard ?? [])];
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
    if (this.pair) return this.goCompared(node);
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
    if (this.pair) this.endComparison(false);
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
    if (id === this.id) return this.pair ? this.endComparison() : null;
    this.trail.push(this.id);
    return this.show(id);
  }

  back() {
    return this.show(this.trail.pop());
  }

  async show(id) {
    this.id = id;
    if (this.pair) this.endComparison(false);
    this.options.open = [];
    this.stamp = null;
    this.rows = null;
    this.calm = 0;
    this.touched = Date.now();
    this.closePanel(false);
    this.actions.close();
    this.nodeActions.close();
    this.closeFound();
    this.own = true;
    this.set("workflow_id", id);
    this.own = false;
    const answer = await this.load({ anew: true, first: true });
    if (answer) this.again();
  }

  // After something was written: what it did is seen here.
  async acted(receipt) {
    this.calm = 0;
    const made = receipt.rows.find((row) => row.new_workflow_id
      && (row.outcome === "done" || row.outcome === "unchanged"));
    if (made) await this.followFork(made);
    else await this.load({ anew: true });
    this.again();
  }

  async followFork(made) {
    const told = this.nodeActions.panel.hidden ? this.actions.panel : this.nodeActions.panel;
    const kept = [...told.childNodes];
    await this.openRun(made.new_workflow_id);
    // The receipt stays until it is closed.
    put(told, kept);
    told.hidden = false;
  }

  async copyCode() {
    const answer = await this.try(this.link.ask("code", { id: this.id, key: this.selected() }));
    if (!answer) return;
    const copied = await copy(answer.text);
    replace(this.strip, el("code", {}, answer.text),
      el("span", { class: "dn-note" }, copied ? "copied" : "select it, and copy"),
      el("span", { class: "dn-space" }),
      this.button("×", "Close", () => (this.strip.hidden = true), { "aria-label": "Close" }));
    this.strip.hidden = false;
  }

  // --- comparing -------------------------------------------------------------------------------

  async compare(first, second, anew = false) {
    const answer = await this.try(this.link.ask("compare",
      { first, second, anew, view: { ...this.view(), picture: "graph" } }));
    if (!answer) return;
    if (this.tab !== "graph") {
      this.tab = "graph";
      this.showTabs();
    }
    this.pair = [first, second];
    this.compared = answer;
    this.canvas.show(answer.picture, `Comparison of ${first} and ${second}`);
    this.fade();
    this.showTools();
    replace(this.strip, el("b", {}, "Comparison"), el("span", {}, "original ", this.runLink(first)),
      el("span", {}, "fork ", this.runLink(second)), el("span", { class: "dn-space" }),
      this.button("End", "Show the run alone", () => this.endComparison()));
    this.strip.hidden = false;
    this.showComparison();
  }

  showComparison() {
    replace(this.panel, comparisonPanel(this.compared, {
      goCompared: (row) => this.goCompared(row),
      endComparison: () => this.endComparison(),
    }));
    this.panel.hidden = false;
  }

  // What the two runs did at one place, one below the other.
  async goCompared(node) {
    if (node.kind === "group") {
      await this.change({ open: [...this.options.open, node.group] });
      return;
    }
    const keys = [node.first, node.second].filter((key) => key !== undefined);
    const ref = node.ref ?? this.compared.picture.nodes.find((other) =>
      JSON.stringify(other.first) === JSON.stringify(node.first)
      && JSON.stringify(other.second) === JSON.stringify(node.second))?.ref;
    if (ref) this.canvas.select(ref, true);
    const parts = [this.button("‹ What differs", "Back to the list", () => this.showComparison())];
    for (const key of keys) {
      const found = await this.try(this.link.ask("node", { id: this.pair[0], key, view: {} },
        `node${JSON.stringify(key)}`));
      if (!found || !this.pair) return;
      const said = JSON.stringify(key) === JSON.stringify(node.first) ? "original" : "fork";
      parts.push(el("h4", {}, said), nodePanel(found, { ...this.doing(found),
        mayFork: false, actions: null, close: () => this.showComparison() }));
    }
    replace(this.panel, el("div", { class: "dn-two" }, parts));
    this.panel.hidden = false;
  }

  endComparison(load = true) {
    this.pair = null;
    this.compared = null;
    this.strip.hidden = true;
    this.options.open = [];
    this.panel.hidden = true;
    this.panel.replaceChildren();
    this.canvas.scale = null;
    this.stamp = null;
    if (load) return this.load();
    return null;
  }

  // --- finding ---------------------------------------------------------------------------------

  typed() {
    this.later("typing", TYPED, async () => {
      const text = this.search.value.trim();
      if (this.tab === "steps") {
        this.showList();
        return;
      }
      if (!text) {
        this.closeFound();
        return;
      }
      const answer = await this.try(this.link.ask("search", { id: this.id, text }));
      if (!answer || this.search.value.trim() !== text) return;
      this.heard = answer.found;
      this.canvas.mark(answer.found.map((node) => node.ref));
      replace(this.found, answer.found.slice(0, 12).map((node) => el("li", {}, el("button", {
        type: "button", on: { click: () => {
          this.go(node.key);
          this.found.hidden = true;
        } },
      }, statusIcon(node.status), el("b", {}, node.name || "workflow"),
      el("span", { class: "dn-quiet" }, node.kind === "workflow" ? node.workflow_id
        : `#${node.number ?? ""} ${node.workflow_id === this.id ? "" : node.workflow_id}`),
      node.error && el("span", { class: "dn-why" }, shortType(node.error))))),
      el("li", { class: "dn-note", role: "status" }, answer.count ? `${count(answer.count)} found`
        : "Nothing of this run holds that."));
      this.found.hidden = false;
      this.search.setAttribute("aria-expanded", "true");
    });
  }

  closeFound() {
    this.found.hidden = true;
    this.search.setAttribute("aria-expanded", "false");
    this.heard = null;
    this.canvas.mark([]);
  }

  // --- by keyboard and along the time ------------------------------------------------------------

  listen() {
    this.search.addEventListener("input", () => this.typed());
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.heard?.length) {
        const at = this.heard.findIndex((node) => node.ref === this.selectedRef());
        const by = event.shiftKey ? -1 : 1;
        this.go(this.heard[(at + by + this.heard.length) % this.heard.length].key);
        event.preventDefault();
      } else if (event.key === "ArrowDown") {
        this.found.querySelector("button")?.focus();
        event.preventDefault();
      }
    });
    this.found.addEventListener("keydown", (event) => {
      const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!by) return;
      const buttons = [...this.found.querySelectorAll("button")];
      const at = buttons.indexOf(event.target) + by;
      (buttons[at] ?? this.search).focus();
      event.preventDefault();
    });
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
        if (!this.found.hidden) this.closeFound();
        else if (this.pair) this.endComparison();
        else if (!this.panel.hidden) this.closePanel();
        else return;
        event.preventDefault();
      } else if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      else if (event.key === "/") {
        this.search.focus();
        event.preventDefault();
      } else if (event.key === "f" || event.key === "F") {
        this.step(event.shiftKey ? -1 : 1);
        event.preventDefault();
      }
    });
    this.root.addEventListener("focusout", (event) => {
      if (!this.found.hidden && !this.found.parentNode.contains(event.relatedTarget)) {
        this.found.hidden = true;
        this.search.setAttribute("aria-expanded", "false");
      }
    });
    for (const event of ["pointerdown", "keydown", "wheel"]) {
      this.root.addEventListener(event, () => (this.touched = Date.now()), { passive: true });
    }
  }

  fade() {
    if (this.heard) this.canvas.mark(this.heard.map((node) => node.ref));
  }

  later(name, ms, act) {
    clearTimeout(this.timers.get(name));
    if (this.closed) return;
    this.timers.set(name, setTimeout(act, ms));
  }

  isSeen() {
    return this.seen && document.visibilityState === "visible" && this.root.isConnected;
  }

  // Asks again, at most once a second, while there is something to wait for and someone sees it.
  async poll() {
    if (this.closed || !this.model.get("live") || !this.active) return;
    if (Date.now() - this.touched > UNTOUCHED) {
      this.set("live", false);
      return;
    }
    if (this.isSeen() && this.link.idle("show") && !this.pair) {
      const before = this.stamp;
      await this.load({ anew: true, stamp: this.stamp });
      this.calm = before === this.stamp ? this.calm + 1 : 0;
    }
    this.again();
  }

  // The longer nothing has changed, the less often.
  again() {
    const calm = this.calm > 30 ? CALM : LOOK;
    this.later("polling", Math.max(calm, BUSY_SHARE * (this.took ?? 0)), () => this.poll());
  }

  watch() {
    const tick = () => {
      if (this.isSeen()) this.showTimes();
      this.later("clock", 1000, tick);
    };
    const live = () => {
      this.touched = Date.now();
      this.calm = 0;
      this.showLive();
      this.showState();
      this.again();
    };
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
    this.model.on("change:live", live);
    this.model.on("change:_selected", chosen);
    this.model.on("change:workflow_id", moved);
    const sight = new IntersectionObserver((entries) => (this.seen = entries.at(-1).isIntersecting));
    sight.observe(this.root);
    tick();
    this.later("polling", LOOK, () => this.poll());
    return () => {
      this.closed = true;
      this.model.off("change:live", live);
      this.model.off("change:_selected", chosen);
      this.model.off("change:workflow_id", moved);
      sight.disconnect();
      for (const timer of this.timers.values()) clearTimeout(timer);
    };
  }

  showTimes() {
    const now = this.now();
    for (const time of this.root.querySelectorAll("time[data-ms]")) {
      const text = ago(Number(time.dataset.ms), now);
      if (time.textContent !== text) time.textContent = text;
    }
    for (const running of this.root.querySelectorAll("[data-since]")) {
      running.textContent = span(now - Number(running.dataset.since));
    }
    this.showState();
  }

  close() {
    this.link.close();
    this.canvas.close();
    for (const end of this.endings) end();
  }
}

export function render({ model, el: host }) {
  // JupyterLab's own shortcuts stay out of what is typed and walked through here.
  const root = el("div", { class: "dn-view dn-inspect", "data-lm-suppress-shortcuts": "true" });
  host.append(root);
  const inspect = new Inspect(model, root);
  return () => inspect.close();
}

export default { render };
