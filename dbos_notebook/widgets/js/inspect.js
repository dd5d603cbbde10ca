// One workflow: what it is, its graph and timeline, what each step did, and what can be done.
import { append, busyWhile, button, closest, copy, copyFeedback, el, focus, focusedElement, followTheme, hasModifier, icon, iconButton, replace } from "./dom.js";
import { mount } from "./fallback.js";
import { activityLine, formatCount, formatDuration, formatInstant, pluralize, shortClassName } from "./format.js";
import { KernelChannel, KernelError } from "./kernel_channel.js";
import { Polling } from "./polling.js";
import { StatusLine } from "./status_line.js";
import { Actions } from "./actions.js";
import { SvgView } from "./svg_view.js";
import { Search } from "./search.js";
import { Comparison } from "./comparison.js";
import { channelsSection } from "./details.js";
import { errorSection, payloadSection } from "./payload_section.js";
import { nodePanel } from "./node_panel.js";
import { runHeader } from "./run_header.js";
import { stepTable } from "./step_table.js";
/** @import {Answer, Ask, GraphNode, InspectTraits, Key, Model, Navigation, NodeList, Picture, Place} from "./types.js" */
/** @import {PictureOptions, PictureView, Receipt, ReceiptRow, RenderProps, RunFacts, Tab} from "./types.js" */
/** @import {PanelOptions} from "./node_panel.js" */

const POLL_MS = 1000;
const SLOW_POLL_MS = 5000;
/** Polls without a change after which polling slows down. */
const UNCHANGED_POLLS = 30;
/** The kernel is busy with polls for at most 1/N of the time. */
const BUSY_SHARE = 12;
const CLOCK_MS = 1000;
const TYPING_MS = 150;
/** Between two readings of what the run is doing, while nothing else changes. */
const ACTIVITY_MS = 10_000;
/** From this width, in pixels, there is room for the payloads above the picture. */
const WIDE = 800;
const RESIZE_MS = 120;
/** A timeline of a run that is active is drawn again after this, though nothing has changed. */
const GROWTH_MS = 5000;
/** Steps in which the width of a picture changes, so that it is not drawn for each pixel. */
const WIDTH_STEP = { timeline: 20, graph: 100 };
const COLLAPSE_ICON = "M2.5 8h11M8 1.5v4.5M5.8 4L8 6l2.2-2M8 14.5V10M5.8 12L8 10l2.2 2";
/** @type {readonly (readonly [Tab, string])[]} */
const TABS = [["graph", "Graph"], ["timeline", "Timeline"], ["steps", "Steps"]];

export class Inspect {
  /**
   * @param {Model<InspectTraits>} model
   * @param {HTMLElement} root
   * @param {Navigation | null} [navigation] leads to other runs, where the view is part of another
   */
  constructor(model, root, navigation = null) {
    this.model = model;
    this.root = root;
    this.navigation = navigation;
    this.start = model.get("_start");
    this.offline = Boolean(this.start.offline);
    this.status = new StatusLine(() => this.refresh(), () => this.statusText());
    this.channel = new KernelChannel(model, this.status);
    this.id = model.get("workflow_id");
    /** @type {Tab} */
    this.tab = this.start.tab;
    /** @type {PictureOptions} */
    this.options = { open: [], hide: false, critical: false, direction: "auto", overview: null };
    /** @type {string[]} the runs that were shown before */
    this.trail = [];
    this.comparison = new Comparison(this);
    /** Whether a change of the model's traits is the view's own. */
    this.isOwnChange = false;
    this.isActive = false;
    /** Whether something was deleted here since the run was opened: it, or a child of it. */
    this.hasDeleted = false;
    /** Whether that was the run itself. */
    this.isDeleted = false;
    /** @type {string | null} */
    this.stamp = null;
    /** @type {RunFacts | null} */
    this.facts = null;
    /** @type {NodeList | null} */
    this.nodeList = null;
    /** @type {Picture | null} */
    this.picture = null;
    this.hasOverview = false;
    this.pictureWidth = 0;
    this.pictureDrawnAt = 0;
    /** @type {Promise<unknown>} the last change of the picture's options */
    this.changing = Promise.resolve();
    this.unchangedPolls = 0;
    this.polling = new Polling(root, model, {
      now: () => this.now(),
      clock: CLOCK_MS,
      interval: () => this.pollInterval(),
      isReady: () => this.channel.isIdle("show") && !this.comparison.pair,
      isFinished: () => !this.isActive && this.facts !== null,
      poll: () => this.poll(),
      onChange: () => this.showLive(),
    });
    this.search = new Search({
      id: () => this.id,
      later: (callback) => this.polling.setTimer("typing", TYPING_MS, callback),
      ask: (text) => this.showErrorsOf(this.channel.ask("search", { id: this.id, text })),
      go: (key) => this.go(key),
      highlight: (nodes) => this.svgView.highlight(nodes.map((node) => node.ref)),
      isSelected: (node) => node.ref === this.selectedRef(),
      filter: () => {
        if (this.tab === "steps") this.showSteps();
        return this.tab === "steps";
      },
    });
    this.svgView = new SvgView((node) => this.choose(node), nodeLabel);
    this.activity = el("div", { role: "status" });
    this.activityAt = 0;
    this.payloadGrid = el("div", { class: "dn-payloads" });
    this.payloads = el("details", { class: "dn-run-data", hidden: true,
      open: root.clientWidth >= WIDE }, el("summary", {}, "Input, output and events"), this.payloadGrid);
    this.head = el("header", { class: "dn-run" });
    this.tabs = el("div", { class: "dn-tabs", role: "tablist", "aria-label": "View" });
    this.failures = el("span", { class: "dn-group dn-failures", hidden: true, role: "group",
      "aria-label": "Failures" });
    this.zoomButtons = this.svgView.zoomButtons();
    this.tools = el("span", { class: "dn-group", role: "group", "aria-label": "Picture" });
    this.notice = el("div", { class: "dn-notice", hidden: true });
    this.panel = el("aside", { class: "dn-side-panel", hidden: true, "aria-label": "Details" });
    this.steps = el("div", { class: "dn-step-listing", hidden: true });
    this.hint = el("span", { class: "dn-muted dn-hint" },
      "Drag to pan · Ctrl+wheel to zoom · arrow keys to move between nodes");
    this.pictureBox = el("div", { class: "dn-picture", role: "tabpanel" }, this.svgView.frame,
      el("div", { class: "dn-below-picture" }, this.svgView.legend));
    this.actions = this.makeActions();
    this.nodeActions = this.makeActions();
    this.build();
    const resize = new ResizeObserver(() => this.onResize());
    resize.observe(this.pictureBox);
    this.cleanups = [followTheme(root), this.followTraits(), () => resize.disconnect()];
    /** @type {Promise<unknown>} */
    this.opening = this.load({ isFirst: true });
  }

  now() {
    return this.status.now();
  }

  /**
   * @template T
   * @param {Promise<T | null>} answer
   */
  showErrorsOf(answer) {
    return this.status.showErrorsOf(answer);
  }

  /**
   * Return the answer to a question about a workflow; null if it was deleted here.
   * @template T
   * @param {Promise<T | null>} answer
   * @param {() => unknown} onDeleted
   * @returns {Promise<T | null>}
   */
  async unlessDeleted(answer, onDeleted) {
    try {
      return await answer;
    } catch (error) {
      if (!this.hasDeleted || !(error instanceof KernelError) || error.type !== "WorkflowNotFoundError") throw error;
      onDeleted();
      return null;
    }
  }

  // --- building and showing ----------------------------------------------------------------------

  makeActions() {
    /** @type {Ask} */
    const ask = (kind, question, lane) =>
      this.showErrorsOf(this.channel.ask(kind, question, lane));
    return new Actions(this.start.forbidden, ask, (receipt) => this.onActionDone(receipt),
      (id) => this.openRun(id));
  }

  build() {
    append(this.root, this.head, this.status.banner, this.actions.panel, this.nodeActions.panel,
      this.notice, this.payloads,
      el("div", { class: "dn-toolbar" }, this.tabs, this.failures, this.search.node,
        el("span", { class: "dn-space" }), this.tools, this.zoomButtons),
      el("div", { class: "dn-body" }, this.pictureBox, this.steps, this.panel),
      el("div", { class: "dn-footer" }, this.status.line, el("span", { class: "dn-space" }), this.hint));
    this.tabs.addEventListener("keydown", (event) => this.onTabKey(event));
    this.root.addEventListener("keydown", (event) => this.onKey(event));
    this.showTabs();
    this.showTools();
    this.showLive();
  }

  showTabs() {
    replace(this.tabs, TABS.map(([tab, label]) => el("button", {
      type: "button", role: "tab", "aria-selected": String(this.tab === tab),
      tabindex: this.tab === tab ? "0" : "-1",
      on: { click: () => this.openTab(tab) },
    }, label)));
    const isPicture = this.tab !== "steps";
    for (const node of [this.pictureBox, this.tools, this.zoomButtons, this.hint]) {
      node.hidden = !isPicture;
    }
    this.steps.hidden = isPicture;
    this.pictureBox.setAttribute("aria-label", new Map(TABS).get(this.tab) ?? "");
    this.root.dataset.tab = this.tab;
  }

  showTools() {
    const toggle = (/** @type {string} */ label, /** @type {string} */ title,
      /** @type {boolean} */ isOn, /** @type {Partial<PictureOptions>} */ change) => {
      const [first, ...others] = label.split(" ");
      // Where it is narrow, the first word alone is shown.
      return button([first, others.map((word) => el("span", { class: "dn-extra" }, ` ${word}`))], title,
        () => this.setOptions(change), { "aria-pressed": String(isOn), "aria-label": label });
    };
    const { open, critical, hide, direction } = this.options;
    const isDown = direction === "TB";
    const isGraph = this.tab === "graph" && !this.comparison.pair;
    const overview = isGraph && toggle("Overview", "Show one node for each kind of workflow and step",
      Boolean(this.options.overview), { overview: !this.options.overview });
    // A saved page has the picture with which it opens.
    if (this.offline || (isGraph && this.options.overview)) {
      replace(this.tools, this.hasOverview && overview);
      return;
    }
    replace(this.tools, overview,
      open.length > 0 && iconButton(icon(COLLAPSE_ICON), "Collapse all: close the groups that were opened",
        () => this.setOptions({ open: [] }), { class: "dn-button dn-tool" }),
      toggle("Critical path", "Highlight the steps that determined the total duration", critical,
        { critical: !critical }),
      toggle("System steps", "Show the steps of DBOS itself: events, sleeps, results", !hide,
        { hide: !hide }),
      isGraph && toggle("↓", "Lay out from top to bottom",
        isDown, { direction: isDown ? "auto" : "TB" }));
  }

  showLive() {
    const { button: live } = this.polling;
    if (!this.isActive) live.title = "Everything has finished: there is nothing to update";
    else if (this.polling.isOn()) live.title = "Updates automatically while visible";
    else live.title = "Update automatically while visible";
    live.toggleAttribute("data-idle", !this.isActive);
    this.status.show();
  }

  /**
   * What is shown in place of the time of the update.
   * @returns {string | null}
   */
  statusText() {
    if (this.offline) return `as of ${formatInstant(this.status.updatedAt)}`;
    return this.isActive && this.polling.isOn() && !this.comparison.pair ? "live" : null;
  }

  /** The run is gone: its name and the receipt stay, without what would ask the database for it. */
  showDeleted() {
    this.isActive = false;
    this.isDeleted = true;
    this.closePanel(false);
    if (this.facts) this.showHeader(this.facts);
    this.root.setAttribute("data-deleted", "");
    this.keepFocus();
  }

  /** @param {RunFacts} facts */
  showHeader(facts) {
    const canAct = !this.start.read_only && !this.offline && !this.isDeleted;
    replace(this.head, runHeader(facts, {
      now: this.now(),
      previous: this.navigation ? undefined : this.trail.at(-1),
      offline: this.offline,
      deleted: this.isDeleted,
      live: this.polling.button,
      activity: this.activity,
      actions: canAct ? this.actions.bar : null,
      forbidden: this.start.forbidden,
      back: () => this.back(),
      refresh: () => this.refresh(),
      copyCode: () => this.copyCode(),
      openRun: (id) => this.openRun(id),
      compare: (original, fork) => this.comparison.show(original, fork),
    }));
  }

  showFailures() {
    const { failures = [], more_failures: more = 0 } = this.facts ?? {};
    this.failures.hidden = !failures.length;
    const total = failures.length + more;
    const index = this.failureIndex();
    replace(this.failures,
      button("‹", "Previous failure (Shift+F)", () => this.goToFailure(-1),
        { "aria-label": "Previous failure" }),
      button(index < 0 ? pluralize(total, "failure") : `${index + 1} of ${formatCount(total)}`,
        "Go to the failure (F)", () => this.goToFailure(index < 0 ? 1 : 0),
        { class: "dn-button dn-bad" }),
      button("›", "Next failure (F)", () => this.goToFailure(1), { "aria-label": "Next failure" }));
  }

  failureIndex() {
    return this.facts?.failures.findIndex((node) => node.ref === this.selectedRef()) ?? -1;
  }

  /** @param {-1 | 0 | 1} offset */
  goToFailure(offset) {
    const failures = this.facts?.failures ?? [];
    const index = this.failureIndex();
    const next = index < 0 ? (offset > 0 ? 0 : failures.length - 1)
      : (index + offset + failures.length) % failures.length;
    const failure = failures[next];
    return failure && this.go(failure.key);
  }

  /**
   * Move the focus along, so that what is marked is what keys act on.
   * @param {-1 | 1} offset
   */
  async focusFailure(offset) {
    await this.goToFailure(offset);
    this.focusSelected();
  }

  focusSelected() {
    if (this.tab === "steps") focus(this.steps.querySelector("[aria-selected=true]"));
    else this.svgView.focusNode(this.selectedRef());
  }

  /** @param {Picture} picture */
  showPicture(picture) {
    if (this.comparison.pair) return;
    const isTimeline = this.tab === "timeline";
    this.picture = picture;
    this.options.overview = picture.overview ?? this.options.overview;
    this.hasOverview ||= Boolean(picture.overview) || !this.offline;
    this.pictureWidth = this.width();
    this.pictureDrawnAt = this.now();
    this.svgView.show(picture, `${isTimeline ? "Timeline" : "Graph"} of `
      + `${this.facts?.row.name ?? "the workflow"}; arrow keys move, Enter opens`,
    JSON.stringify([this.id, this.tab, Boolean(picture.overview)]), isTimeline);
    this.svgView.select(this.selectedRef());
    this.showTools();
    this.highlightResults();
  }

  highlightResults() {
    if (this.search.results.length) {
      this.svgView.highlight(this.search.results.map((node) => node.ref));
    }
  }

  showSteps() {
    if (!this.nodeList) return;
    replace(this.steps, stepTable(this.nodeList, {
      text: this.search.text, root: this.id, selected: this.selectedRef(),
      onChoose: (node) => this.choose(node),
    }));
  }

  // --- reading -----------------------------------------------------------------------------------

  /** @returns {PictureView} */
  pictureView() {
    return { ...this.options, overview: this.tab === "timeline" ? false : this.options.overview,
      picture: this.tab === "timeline" ? "timeline" : "graph",
      width: this.width() };
  }

  /**
   * Whether what a picture was asked to show is still what is chosen; its width is another matter.
   * @param {PictureView} view
   */
  isChosen(view) {
    return JSON.stringify({ ...view, width: 0 }) === JSON.stringify({ ...this.pictureView(), width: 0 });
  }

  /** Whether the picture is drawn for the width that it has, and not for that of the view. */
  isFluid() {
    return this.tab === "timeline" || (this.tab === "graph" && Boolean(this.options.overview));
  }

  /** The width for which a timeline or an overview is drawn; a graph only chooses its direction. */
  width() {
    const width = this.isFluid() ? this.pictureBox.clientWidth : this.root.clientWidth;
    const step = WIDTH_STEP[this.tab === "timeline" ? "timeline" : "graph"];
    return Math.round(width / step) * step;
  }

  /**
   * Show the run.
   * @param {object} [options]
   * @param {boolean} [options.reload] read it from the database again
   * @param {boolean} [options.isFirst] it has not been shown before
   * @param {string | null} [options.stamp] nothing is sent if this still holds
   * @returns {Promise<Answer<"show"> | null>}
   */
  async load({ reload = false, isFirst = false, stamp = null } = {}) {
    const { id } = this;
    const view = this.pictureView();
    const answer = await this.showErrorsOf(this.unlessDeleted(this.channel.ask("show",
      { id, view, anew: reload, stamp }), () => this.showDeleted()));
    if (!answer || id !== this.id) return null;
    // While the answer was on its way, the user went to a node, which opened the groups that hid it.
    if (!this.isChosen(view)) return this.load({ isFirst });
    this.isActive = answer.active;
    this.status.updated(answer);
    this.showLive();
    if (!answer.same || Date.now() - this.activityAt > ACTIVITY_MS) this.loadActivity();
    if (answer.same) return answer;
    const { facts } = answer;
    this.stamp = answer.stamp;
    this.facts = facts;
    this.showHeader(facts);
    this.navigation?.changed();
    this.showPicture(answer.picture);
    this.showFailures();
    this.loadPayloads();
    if (!this.offline) {
      this.actions.setWorkflows([id], `${facts.row.status} ${facts.forks.length} ${this.stamp}`);
    }
    if (this.tab === "steps") this.loadSteps();
    const selected = this.selected();
    if (selected !== null && (isFirst || reload)) {
      this.showDetails(selected, { isUpdate: !isFirst, scroll: isFirst });
    } else if (isFirst && facts.row.status === "ERROR" && facts.failures[0]) {
      this.svgView.reveal(facts.failures[0].ref);
    } else if (isFirst && this.isActive) {
      this.svgView.revealEnd();
    }
    return answer;
  }

  /** Read and show the input, the output and what the run published, which needs no click. */
  async loadPayloads() {
    const { id } = this;
    const found = await this.showErrorsOf(this.channel.ask("node",
      { id, key: id, view: {} }, "payloads"));
    if (found?.kind !== "workflow" || id !== this.id) return;
    const { payload } = this.panelOptions();
    const { input, output, error } = found;
    const parts = [input && payloadSection("input", input, payload, id),
      error?.traceback && errorSection(error, payload, id),
      output && payloadSection("output", output, payload, id), channelsSection(found)];
    this.payloads.hidden = !parts.some(Boolean);
    replace(this.payloadGrid, parts);
  }

  /** Read and show what the run is doing now, which is more than that it is active. */
  async loadActivity() {
    const { id } = this;
    this.activityAt = Date.now();
    const answer = this.isActive && !this.offline
      ? await this.showErrorsOf(this.channel.ask("activities", { ids: [id] })) : { activities: {} };
    if (!answer || id !== this.id) return;
    const activity = answer.activities[id];
    const shown = activity && activityLine(activity);
    if (shown?.textContent !== this.activity.firstChild?.textContent) replace(this.activity, shown);
  }

  /** @param {Partial<PictureOptions>} change */
  setOptions(change) {
    Object.assign(this.options, change);
    this.showTools();
    if (this.comparison.pair) return this.comparison.update();
    this.changing = busyWhile(this.pictureBox, this.load());
    return this.changing;
  }

  /** @param {Tab} tab */
  async openTab(tab) {
    if (tab === this.tab && !this.comparison.pair) return;
    if (this.comparison.pair) this.comparison.discard();
    this.tab = tab;
    this.svgView.scale = null;
    this.showTabs();
    this.showTools();
    focus(this.tabs.querySelector("[aria-selected=true]"));
    this.navigation?.changed();
    await (tab === "steps" ? busyWhile(this.steps, this.loadSteps())
      : busyWhile(this.pictureBox, this.load()));
    this.svgView.select(this.selectedRef(), true);
  }

  async refresh() {
    this.polling.touch();
    this.unchangedPolls = 0;
    if (this.comparison.pair) await this.comparison.update(true);
    else await busyWhile(this.pictureBox, this.load({ reload: true }));
  }

  async loadSteps() {
    const answer = await this.showErrorsOf(this.channel.ask("list", { id: this.id }));
    if (!answer) return;
    this.nodeList = answer;
    this.showSteps();
  }

  /** At most once a second, and less often the longer nothing has changed. */
  pollInterval() {
    return Math.max(this.unchangedPolls > UNCHANGED_POLLS ? SLOW_POLL_MS : POLL_MS,
      BUSY_SHARE * (this.status.took ?? 0));
  }

  async poll() {
    const { stamp } = this;
    const hasGrown = this.tab === "timeline" && this.now() - this.pictureDrawnAt > GROWTH_MS;
    await this.load({ reload: true, stamp: hasGrown ? null : stamp });
    this.unchangedPolls = stamp === this.stamp ? this.unchangedPolls + 1 : 0;
  }

  /** Draw a timeline or an overview again if its width has changed. */
  onResize() {
    const fits = () => !this.isFluid() || this.comparison.pair || this.offline
      || !this.picture || !this.pictureBox.clientWidth || this.pictureWidth === this.width();
    if (!fits()) this.polling.setTimer("resize", RESIZE_MS, () => fits() || this.setOptions({}));
  }

  // --- selecting -----------------------------------------------------------------------------------

  /** @returns {Key | null} the key of the selected node */
  selected() {
    const key = this.model.get("_selected");
    if (!key.length) return null;
    return key.length === 1 ? String(key[0]) : key;
  }

  /** @returns {string | null} */
  selectedRef() {
    const selected = this.selected();
    if (selected === null) return null;
    const nodes = [...(this.picture?.nodes ?? []), ...(this.facts?.failures ?? []),
      ...(this.nodeList?.rows ?? []), ...this.search.results];
    return nodes.find((node) => isSameKey(node.key, selected))?.ref ?? null;
  }

  /**
   * @template {keyof InspectTraits} Name
   * @param {Name} name
   * @param {InspectTraits[Name]} value
   */
  setTrait(name, value) {
    this.isOwnChange = true;
    this.model.set(name, value);
    this.model.save_changes();
    this.isOwnChange = false;
  }

  /** @param {Key | null} key */
  setSelected(key) {
    const selected = key === null ? [] : typeof key === "string" ? [key] : [...key];
    if (isSameKey(selected, this.model.get("_selected"))) return;
    this.setTrait("_selected", selected);
    this.navigation?.changed();
  }

  /**
   * A node was clicked.
   * @param {GraphNode} node
   */
  choose(node) {
    if (this.comparison.pair) {
      this.comparison.choose(node);
      return;
    }
    this.setSelected(node.key);
    this.svgView.select(node.ref);
    this.showFailures();
    if (node.kind === "group" && node.group !== undefined) this.expand(node.group);
    this.showDetails(node.key);
  }

  /** Where it is narrow, the details are below the picture, and maybe below the window. */
  showPanel() {
    this.panel.hidden = false;
    if (this.panel.offsetTop > this.pictureBox.offsetTop && this.panel.offsetTop > this.steps.offsetTop) {
      this.panel.scrollIntoView({ block: "nearest" });
    }
  }

  /** @param {string} group */
  async expand(group) {
    const { open } = this.options;
    if (!open.includes(group)) await this.setOptions({ open: [...open, group], overview: false });
  }

  /** @param {string} group */
  async collapse(group) {
    await this.setOptions({ open: this.options.open.filter((other) => other !== group) });
    this.updateDetails();
  }

  /**
   * Go to a node; groups that hide it are expanded.
   * @param {Key} key
   */
  async go(key) {
    if (this.comparison.pair) this.comparison.discard();
    // The picture that is in flight decides whether the node is hidden.
    await this.changing;
    this.setSelected(key);
    const shown = this.selectedRef();
    if (this.tab !== "steps" && !(shown !== null && this.svgView.has(shown))) {
      const view = this.pictureView();
      const answer = await busyWhile(this.pictureBox, this.showErrorsOf(this.channel.ask("reveal",
        { id: this.id, view, key })));
      if (answer && this.isChosen(view)) {
        this.options.open = answer.open;
        this.options.overview = false;
        this.showPicture(answer.picture);
      }
    }
    this.svgView.select(this.selectedRef(), true);
    this.showFailures();
    if (this.tab === "steps") this.showSteps();
    await this.showDetails(key);
  }

  /**
   * Go to a node that the details name. The focus moves along, unless it was moved elsewhere meanwhile.
   * @param {Key} key
   */
  async goFromDetails(key) {
    await this.go(key);
    const focused = focusedElement(this.root);
    if (isLost(focused) || this.panel.contains(focused)) this.focusSelected();
  }

  /**
   * @param {Key} key
   * @param {object} [options]
   * @param {boolean} [options.isUpdate] only if they are open, and without moving
   * @param {boolean} [options.scroll] bring the node into view
   */
  async showDetails(key, { isUpdate = false, scroll = false } = {}) {
    const found = await this.showErrorsOf(this.unlessDeleted(this.channel.ask("node",
      { id: this.id, key, view: { ...this.pictureView(), open: this.openWithout(key) } }),
    () => this.closePanel()));
    const selected = this.selected();
    if (!found || selected === null || !isSameKey(selected, key)) return;
    if (isUpdate && this.panel.hidden) return;
    if (scroll) this.svgView.select(this.selectedRef(), true);
    const details = nodePanel(found, {
      ...this.panelOptions(),
      actions: found.kind === "workflow" && !this.start.read_only ? this.nodeActions.bar : null,
    });
    const { scrollTop } = this.panel;
    if (isUpdate && details.textContent === this.panel.firstChild?.textContent) return;
    const hadFocus = this.panel.contains(focusedElement(this.panel));
    replace(this.panel, details);
    // What had the focus may be gone: the keys of the view keep working.
    if (hadFocus && isLost(focusedElement(this.panel))) focus(this.panel.querySelector("h3"));
    if (isUpdate) this.panel.scrollTop = scrollTop;
    else this.showPanel();
    if (found.kind === "workflow" && found.row.id !== this.id && !this.start.read_only) {
      this.nodeActions.setWorkflows([found.row.id], found.row.status);
    }
  }

  /** Update the details that are open. */
  updateDetails() {
    const selected = this.selected();
    if (selected !== null) this.showDetails(selected, { isUpdate: true });
  }

  /**
   * The expanded groups without the one that a key names: a group's details are those of the group
   * while it is collapsed.
   * @param {Key} key
   */
  openWithout(key) {
    const { open } = this.options;
    return typeof key !== "string" && key[0] === "group"
      ? open.filter((group) => group !== key[1]) : open;
  }

  /** @returns {PanelOptions} */
  panelOptions() {
    return {
      now: this.now(),
      root: this.id,
      offline: this.offline,
      forbidden: this.start.forbidden,
      canFork: !this.start.read_only && !this.offline,
      actions: null,
      go: (key) => this.goFromDetails(key),
      openRun: (id) => (id === this.id || this.offline ? this.goFromDetails(id) : this.openRun(id)),
      isExpanded: (group) => this.options.open.includes(group),
      expand: (group) => this.expand(group).then(() => this.updateDetails()),
      collapse: (group) => this.collapse(group),
      fork: (id, step) => this.nodeActions.begin("fork", { start_step: String(step) }, [id]),
      payload: this.offline ? undefined : (question) => this.showErrorsOf(this.channel.ask("payload",
        question, `payload ${question.name} ${question.find === undefined}`)),
      forkAll: (ids) => this.nodeActions.begin("fork", { start_step: "failed" }, ids),
      repairAll: (ids) => this.nodeActions.begin("repair", {}, ids),
      raw: async (key) => {
        const answer = await this.showErrorsOf(this.channel.ask("raw", { key }));
        return answer && answer.payloads;
      },
      code: (key) => this.code(key),
      close: () => this.closePanel(),
    };
  }

  /** @param {boolean} [takeFocus] */
  closePanel(takeFocus = true) {
    const ref = this.selectedRef();
    this.panel.hidden = true;
    this.panel.replaceChildren();
    this.setSelected(null);
    this.svgView.select(null);
    this.showFailures();
    if (!takeFocus) return;
    if (this.tab === "steps") focus(this.steps.querySelector("[aria-selected=true]"));
    else this.svgView.moveFocus(ref);
    this.keepFocus();
  }

  /** Where what had the focus is gone, the heading has it: the keys of the view keep working. */
  keepFocus() {
    if (isLost(focusedElement(this.root))) focus(this.head.querySelector("h2"));
  }

  // --- going to other runs -------------------------------------------------------------------------

  /** @param {string} id */
  async openRun(id) {
    if (id === this.id) {
      if (this.comparison.pair) await this.comparison.close();
      return;
    }
    if (this.navigation) {
      await this.navigation.open(id);
      return;
    }
    this.trail.push(this.id);
    await this.showRun(id);
  }

  /**
   * Show a run, with a tab and a node of it. The kernel has just read it.
   * @param {string} id
   * @param {Pick<Place, "tab" | "node">} options
   */
  async openAt(id, { tab = this.tab, node }) {
    const isOtherTab = tab !== this.tab;
    this.tab = tab;
    this.showTabs();
    if (id !== this.id) {
      await this.showRun(id, false);
    } else {
      await this.opening;
      if (isOtherTab) await this.load();
    }
    if (isOtherTab && tab === "steps") await this.loadSteps();
    if (node && !isSameKey(node, this.selected() ?? "")) await this.go(node);
  }

  /** @returns {Pick<Place, "id" | "tab" | "node">} */
  whereabouts() {
    return { id: this.id, tab: this.tab, node: this.selected() ?? undefined };
  }

  async back() {
    const id = this.trail.pop();
    if (id !== undefined) await this.showRun(id);
  }

  /**
   * @param {string} id
   * @param {boolean} [reload]
   */
  async showRun(id, reload = true) {
    const hadFocus = this.root.contains(focusedElement(this.root));
    this.id = id;
    if (this.comparison.pair) this.comparison.discard();
    this.options.open = [];
    this.options.overview = null;
    this.stamp = null;
    this.nodeList = null;
    this.unchangedPolls = 0;
    this.hasDeleted = false;
    this.isDeleted = false;
    this.root.removeAttribute("data-deleted");
    this.polling.touch();
    this.closePanel(false);
    this.actions.close();
    this.nodeActions.close();
    this.search.close();
    this.setTrait("workflow_id", id);
    const answer = await busyWhile(this.root, this.load({ reload, isFirst: true }));
    if (answer) this.polling.schedule();
    if (hadFocus) this.keepFocus();
  }

  /** @param {Receipt | null} receipt */
  async onActionDone(receipt) {
    this.unchangedPolls = 0;
    this.hasDeleted ||= receipt?.action === "delete";
    const forks = receipt?.rows.filter((row) => row.new_workflow_id !== undefined
      && (row.outcome === "done" || row.outcome === "unchanged")) ?? [];
    // Of several new runs none stands for all: the receipt follows them.
    if (forks.length === 1 && forks[0]) await this.openFork(forks[0]);
    else await this.load({ reload: true });
    this.polling.schedule();
  }

  /**
   * Show a new run; the receipt stays until it is closed.
   * @param {ReceiptRow} row
   */
  async openFork(row) {
    const actions = this.nodeActions.panel.hidden ? this.actions : this.nodeActions;
    const { panel } = actions;
    const receipt = [...panel.childNodes];
    const hadFocus = actions.hasFocus();
    await this.openRun(row.new_workflow_id ?? this.id);
    append(panel, receipt);
    panel.hidden = false;
    if (hadFocus) actions.focusRows();
  }

  /** @param {Key | null} key */
  async code(key) {
    const answer = await this.showErrorsOf(this.channel.ask("code", { id: this.id, key }));
    return answer && answer.text;
  }

  async copyCode() {
    const code = await this.code(this.selected());
    if (code === null) return;
    const isCopied = await copy(code);
    replace(this.notice, el("code", {}, code),
      el("span", { class: "dn-note" }, copyFeedback(isCopied)), el("span", { class: "dn-space" }),
      iconButton("×", "Close", () => (this.notice.hidden = true)));
    this.notice.hidden = false;
  }

  // --- keyboard and the model's traits -------------------------------------------------------------

  /** @param {KeyboardEvent} event */
  onTabKey(event) {
    const offset = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!offset) return;
    const index = TABS.findIndex(([tab]) => tab === this.tab);
    const next = TABS[(index + offset + TABS.length) % TABS.length];
    if (next) this.openTab(next[0]);
    event.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const isTyping = closest(event, "input, select, textarea");
    if (event.key === "Escape") {
      if (this.search.isOpen) this.search.close();
      else if (this.nodeActions.dismiss() || this.actions.dismiss()) this.keepFocus();
      else if (this.comparison.pair) this.comparison.close();
      else if (!this.panel.hidden) this.closePanel();
      else return;
    } else if (isTyping || hasModifier(event) || this.isDeleted) return;
    else if (event.key === "/") this.search.input.focus();
    else if (event.key.toLowerCase() === "f") this.focusFailure(event.shiftKey ? -1 : 1);
    else return;
    event.preventDefault();
  }

  /** Follow changes that Python makes to the traits. */
  followTraits() {
    const onSelected = () => {
      if (this.isOwnChange) return;
      const key = this.selected();
      if (key === null) this.closePanel();
      else this.go(key);
    };
    const onWorkflow = () => {
      if (this.navigation || this.isOwnChange || this.model.get("workflow_id") === this.id) return;
      this.trail.push(this.id);
      this.showRun(this.model.get("workflow_id"));
    };
    const onLive = () => (this.unchangedPolls = 0);
    const callbacks = { "change:_selected": onSelected, "change:workflow_id": onWorkflow,
      "change:live": onLive };
    for (const [event, callback] of Object.entries(callbacks)) this.model.on(event, callback);
    return () => {
      for (const [event, callback] of Object.entries(callbacks)) this.model.off(event, callback);
    };
  }

  close() {
    this.channel.close();
    this.polling.close();
    this.status.close();
    this.svgView.close();
    for (const cleanup of this.cleanups) cleanup();
  }
}

/**
 * What a screen reader says of a node.
 * @param {GraphNode} node
 */
function nodeLabel({ name, title, kind, status, count, error, took, duration }) {
  return [kind === "aggregate" && `${formatCount(count ?? 0)} times`, title ?? name, status,
    error && shortClassName(error), took ?? formatDuration(duration)].filter(Boolean).join(", ");
}

/**
 * Whether what had the focus is gone, or cannot be seen.
 * @param {Element | null} focused
 */
function isLost(focused) {
  return !focused || focused === document.body || !focused.checkVisibility();
}

/**
 * @param {Key} key
 * @param {Key} other
 */
function isSameKey(key, other) {
  return JSON.stringify(key) === JSON.stringify(other);
}

/** @param {RenderProps<InspectTraits>} props */
export function render(props) {
  return mount(props, "dn-inspect", (model, root) => new Inspect(model, root));
}

export default { render };
