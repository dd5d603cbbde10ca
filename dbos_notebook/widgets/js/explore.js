// The list of workflows: filters, pages of rows, their details, and actions on the selected ones.
import { append, busyWhile, button, closest, copy, copyFeedback, el, focus, followTheme, iconButton, replace, uniqueId } from "./dom.js";
import { mount } from "./fallback.js";
import { formatCount, formatDate } from "./format.js";
import { KernelChannel, KernelError } from "./kernel_channel.js";
import { Polling } from "./polling.js";
import { isUnfinished } from "./status.js";
import { StatusLine } from "./status_line.js";
import { keepVisible } from "./sticky.js";
import { Actions } from "./actions.js";
import { workflowDetails } from "./details.js";
import { FilterPanel, StatusBar } from "./filters.js";
import { Grid } from "./grid.js";
/** @import {Activity, Ask, Column, Cursor, ExploreTraits, ListView, Mode, Model, Navigation, Page, RenderProps, Row} from "./types.js" */
/** @import {StepsPage, WorkflowDetails} from "./types.js" */

/**
 * @typedef {object} OpenDetails
 * @property {WorkflowDetails & StepsPage} [found] missing while they are loaded
 * @property {string} [stamp]
 * @property {string} [status]
 * @property {string} [error]
 * @property {HTMLElement} [node]
 */

const TYPING_MS = 90;
/** Between two searches, so that typing sends at most four a second. */
const SEARCH_INTERVAL_MS = 250;
const POLL_MS = 2000;
const CLOCK_MS = 5000;
/** Between two readings of what active workflows do, while nothing else changes. */
const ACTIVITY_MS = 10_000;
/** The kernel is busy with polls, and with counts, for at most 1/N of the time. */
const POLL_SHARE = 20;
/** And with searches that polls repeat, each of which may read many parts. */
const SEARCH_SHARE = 10;
const COUNT_SHARE = 400;
/** @type {readonly (readonly [Mode, string, string])[]} */
const MODES = [
  ["flat", "List", "All workflows that match"],
  ["tree", "Tree", "Children below their parents"],
  ["queued", "Enqueued", "Workflows that wait or run on queues, in the order of dequeuing"],
];
const NO_PARENTS = "This database does not record parents";

export class Explore {
  /**
   * @param {Model<ExploreTraits>} model
   * @param {HTMLElement} root
   * @param {Navigation | null} [navigation] leads to runs, where the list is part of another view
   */
  constructor(model, root, navigation = null) {
    this.model = model;
    this.root = root;
    this.navigation = navigation;
    this.start = model.get("_start");
    /** @type {ListView} */
    this.view = structuredClone(this.start.view);
    this.status = new StatusLine(() => this.refresh());
    this.channel = new KernelChannel(model, this.status);
    this.polling = new Polling(root, model, {
      now: () => this.now(),
      clock: CLOCK_MS,
      interval: () => this.pollInterval(),
      // Also not soon after a long search, which may have ended just before.
      isReady: () => this.channel.isIdle("page")
        && (this.parts === 1 || Date.now() - this.readAt >= this.pollInterval()),
      poll: () => this.reload(false),
      onChange: () => this.status.show(),
    });
    this.polling.button.title = "Update every 2 s while visible, less often where reading takes long";
    /** @type {readonly Row[]} */
    this.rows = [];
    /** @type {Page} */
    this.page = { rows: [], more: false, last: [], searched_to: null };
    this.isLoaded = false;
    /** @type {string | null} */
    this.stamp = null;
    /** In how many parts the page was read, how long that took, and when it ended. */
    this.parts = 1;
    this.readTook = 0;
    this.readAt = 0;
    /** @type {Cursor} where the page begins */
    this.cursor = [];
    /** @type {Cursor[]} where the pages before it begin */
    this.previousCursors = [];
    /** @type {string | null} where a range of selected rows begins */
    this.anchor = null;
    /** @type {Map<string, OpenDetails>} by workflow ID */
    this.openDetails = new Map();
    /** @type {Record<string, number> | null} by status; null: not known */
    this.counts = null;
    this.countedAt = 0;
    /** @type {Map<string, Activity>} by workflow ID, of the active ones */
    this.activities = new Map();
    this.activitiesAt = 0;
    this.countTook = 0;
    this.searchedAt = 0;
    this.grid = this.makeGrid();
    this.search = el("input", { type: "search", class: "dn-search", spellcheck: "false",
      placeholder: "Search ID, name, user, queue, error", "aria-label": "Search",
      value: this.view.search ?? "", on: { input: () => this.onSearchInput() } });
    this.modes = el("div", { class: "dn-segments", role: "group", "aria-label": "View" });
    this.statusBar = new StatusBar(this.view, (change) => this.change(change));
    this.filters = new FilterPanel(this.start, this.view, (change) => this.change(change),
      () => this.loadChoices(), uniqueId());
    this.filterButton = button("Filter", "More filters", () => this.toggleFilters(),
      { "aria-expanded": "false" });
    this.code = el("div", { class: "dn-code", hidden: true });
    this.selection = el("div", { class: "dn-selection", hidden: true, role: "group",
      "aria-label": "Selected workflows" });
    this.actions = this.makeActions();
    this.sticky = el("div", { class: "dn-sticky" }, this.selection, this.actions.panel);
    this.range = el("span", { class: "dn-range", role: "status" });
    this.previous = iconButton("‹", "Previous page", () => this.turnPage(-1));
    this.next = iconButton("›", "Next page", () => this.turnPage(1));
    this.sizes = el("select", { class: "dn-select", "aria-label": "Rows per page" },
      this.start.sizes.map((size) => el("option", { value: size }, size)));
    this.build();
    this.onSelected = () => this.showSelection();
    model.on("change:selected", this.onSelected);
    model.on("change:_select_all", this.onSelected);
    this.cleanups = [followTheme(root), keepVisible(this.sticky, root)];
    this.load({ counts: true });
  }

  now() {
    return this.status.now();
  }

  /** @type {Ask} */
  ask(kind, question, lane) {
    return this.status.showErrorsOf(this.channel.ask(kind, question, lane));
  }

  // --- building and showing ----------------------------------------------------------------------

  makeGrid() {
    return new Grid({
      now: () => this.now(),
      mode: () => this.view.mode,
      sortOrder: () => this.sortOrder(),
      sort: (column) => this.sort(column),
      toggleDetails: (id) => this.toggleDetails(id),
      toggleChildren: (row) => this.toggleChildren(row),
      toggleSelected: (id, isRange) => this.toggleSelected(id, isRange),
      addSelected: (ids) => this.addSelected(ids),
      selectPage: (isSelected) => this.selectPage(isSelected),
      selected: () => this.selected(),
      details: (row) => this.details(row),
      activity: (id) => this.activities.get(id),
      isOpen: (id) => this.openDetails.has(id),
      openWorkflow: this.navigation ? (id) => this.openWorkflow(id) : null,
      openParent: (id) => this.openWorkflow(id),
      turnPage: (direction) => ((direction > 0 ? this.next : this.previous).disabled
        ? null : this.turnPage(direction)),
    });
  }

  makeActions() {
    /** @type {Ask} */
    const ask = (kind, question, lane) => this.ask(kind, this.isAllSelected && "ids" in question
      ? { ...question, ids: [], select_all: true, view: this.view } : question, lane);
    const actions = new Actions(this.start.forbidden, ask, () => this.refresh(),
      (id) => this.openWorkflow(id));
    actions.bar.hidden = this.start.read_only;
    return actions;
  }

  build() {
    this.sizes.value = String(this.view.size);
    this.sizes.addEventListener("change", () => this.change({ size: Number(this.sizes.value) }));
    append(this.root,
      el("div", { class: "dn-top" }, this.search, this.filters.ages, this.filterButton, this.modes,
        el("span", { class: "dn-space" }), this.polling.button,
        button("Refresh", "Read the list again", () => this.refresh()),
        button("Code", "Show and copy the Python code that returns these rows",
          () => this.showCode())),
      this.statusBar.node, this.filters.panel, this.filters.chips, this.status.banner, this.code,
      this.sticky,
      el("div", { class: "dn-scroll" }, this.grid.node),
      el("div", { class: "dn-foot" }, this.previous, this.range, this.next, this.sizes,
        el("span", { class: "dn-space" }), this.status.line));
    this.root.addEventListener("keydown", (event) => this.onKey(event));
    this.showModes();
    this.grid.show([], this.emptyText());
    this.showSelection();
  }

  showModes() {
    replace(this.modes, MODES.map(([mode, label, title]) => {
      const isUnavailable = mode === "tree" && !this.start.has_parents;
      return el("button", {
        type: "button",
        title: isUnavailable ? NO_PARENTS : title,
        disabled: isUnavailable,
        "aria-pressed": String(this.view.mode === mode),
        on: { click: () => this.change({ mode, sort: "", descending: null,
          // What has ended is on no queue any more.
          status: mode === "queued" ? this.view.status?.filter(isUnfinished) : this.view.status }) },
      }, label);
    }));
  }

  /** @returns {[string, boolean]} the sort key, and whether it descends */
  sortOrder() {
    const isQueued = this.view.mode === "queued";
    const key = this.view.sort || (isQueued ? "queue_position" : "created_at");
    return [key, this.view.descending ?? (key === "created_at" && !isQueued)];
  }

  /** @param {Column} column */
  sort(column) {
    const [key, descending] = this.sortOrder();
    const isLargestFirst = column.key === "created_at" || column.key === "duration";
    this.change({ sort: column.key,
      descending: key === column.key ? !descending : isLargestFirst && !column.reversed });
  }

  showRows() {
    this.grid.show(this.rows, this.emptyText());
    this.showRange();
    this.showSelection();
  }

  emptyText() {
    if (this.page.searched_to) return "Searching older workflows …";
    if (!this.isLoaded) return "Loading …";
    const { search, status, start_time: since, end_time: until } = this.view;
    if (search || status?.length || since || until || this.filters.chips.childElementCount) {
      return "No workflow matches.";
    }
    return this.view.mode === "queued" ? "No workflow waits or runs on a queue." : "No workflows yet.";
  }

  /**
   * The details of a row, if they are open.
   * @param {Row} row
   */
  details(row) {
    const details = this.openDetails.get(row.id);
    if (!details) return null;
    details.node ??= el("tr", { class: "dn-opened", role: "row" }, el("td", { class: "dn-whole",
      role: "gridcell" }, details.found
      ? workflowDetails(details.found, {
        now: this.now(),
        openWorkflow: (id) => this.openWorkflow(id),
        payload: (question) => this.ask("payload", question, `payload ${question.name} ${question.find === undefined}`),
        moreSteps: (after) => this.ask("steps", { id: row.id, after }, `steps ${row.id}`),
      })
      : el("p", { class: "dn-note" }, details.error ?? "Loading …")));
    return details.node;
  }

  showRange() {
    const first = this.previousCursors.length * this.view.size + 1;
    const total = this.total();
    let text = "none";
    if (this.rows.length) {
      text = `${formatCount(first)}–${formatCount(first + this.rows.length - 1)}`;
      if (total !== null) text += ` of ${formatCount(total)}`;
      else if (this.page.more) text += " of more";
    }
    if (this.page.searched_to) text += ` · searched back to ${formatDate(new Date(this.page.searched_to))}`;
    if (this.range.textContent !== text) this.range.textContent = text;
    this.previous.disabled = !this.previousCursors.length;
    this.next.disabled = !this.page.more || !this.rows.length;
    this.grid.node.setAttribute("aria-rowcount", String(total ?? -1));
  }

  /** The number of workflows that match; null: not known. */
  total() {
    const { counts } = this;
    if (!counts || this.view.mode === "tree") return null;
    const statuses = this.view.status?.length ? this.view.status : Object.keys(counts);
    return statuses.reduce((sum, status) => sum + (counts[status] ?? 0), 0);
  }

  // --- reading -----------------------------------------------------------------------------------

  /** @param {Partial<ListView>} change */
  async change(change) {
    Object.assign(this.view, change);
    if (this.isAllSelected) this.select([]);
    this.previousCursors = [];
    this.cursor = [];
    if ("mode" in change) {
      this.showModes();
      this.grid.children.clear();
      this.openDetails.clear();
    }
    this.filters.update();
    this.statusBar.update(this.counts, this.isLoaded);
    this.navigation?.changed();
    await this.load({ counts: true });
  }

  /**
   * Show the rows of other filters, with the defaults for what is not named.
   * @param {Partial<ListView>} view
   */
  async setView(view) {
    const { mode, size } = this.start.view;
    const names = /** @type {(keyof ListView)[]} */ (Object.keys(this.view));
    const removed = Object.fromEntries(names.map((name) => [name, undefined]));
    const wanted = { ...removed, mode, size, ...view };
    if (JSON.stringify(wanted) === JSON.stringify({ ...removed, ...this.view })) return;
    this.search.value = wanted.search ?? "";
    this.openDetails.clear();
    this.actions.close();
    await this.change(wanted);
  }

  /** What differs from the view that the list starts with when no filter is given. */
  changedView() {
    const { mode, size } = this.start.view;
    const isSet = (/** @type {[string, unknown]} */ [name, value]) => value !== undefined && value !== null && value !== ""
      && !(Array.isArray(value) && !value.length)
      && !(name === "mode" && value === mode) && !(name === "size" && value === size);
    return Object.fromEntries(Object.entries(this.view).filter(isSet));
  }

  onSearchInput() {
    const elapsed = Date.now() - this.searchedAt;
    this.polling.setTimer("typing", Math.max(TYPING_MS, SEARCH_INTERVAL_MS - elapsed), () => {
      this.searchedAt = Date.now();
      this.change({ search: this.search.value.trim() });
    });
  }

  /**
   * Show a run: the run itself beside the list, or its row.
   * @param {string} id
   */
  openWorkflow(id) {
    return this.navigation ? this.navigation.open(id) : this.find(id);
  }

  /** @param {string} id */
  find(id) {
    this.search.value = id;
    this.openDetails.clear();
    this.change({ search: id, status: [], mode: this.view.mode === "queued" ? "flat" : this.view.mode });
  }

  /**
   * Read the page, and with it the number of workflows by status: in one snapshot.
   * @param {{stamp?: string | null, counts?: boolean}} [options] nothing is sent if the stamp still holds
   */
  async load({ stamp = null, counts = false } = {}) {
    const isPoll = stamp !== null;
    const startedAt = Date.now();
    // The stamp is that of the first part: what has changed may be in another.
    const asked = this.ask("page", { view: this.view, after: this.cursor,
      stamp: this.parts > 1 ? null : stamp, counts });
    const page = await (isPoll ? asked : busyWhile(this.grid.node, asked));
    if (!page) return;
    this.status.updated(page);
    if (page.counts !== undefined) {
      this.countedAt = Date.now();
      this.countTook = page.count_took ?? 0;
      this.showCounts(page.counts);
    }
    if (!page.same) {
      this.isLoaded = true;
      if (!isPoll) this.showPage(page, page.rows);
      if (!await this.searchOn(page, isPoll)) return;
      this.stamp = page.stamp;
    }
    this.readAt = Date.now();
    this.readTook = this.readAt - startedAt;
    if (!page.same) await this.loadActivities();
  }

  /**
   * Show the rows that were read, the last of them with a page.
   * @param {Page} page
   * @param {readonly Row[]} rows
   */
  showPage(page, rows) {
    this.page = page;
    this.rows = rows;
    this.showRows();
  }

  /** Read what the active workflows on the page are doing, which costs more than the page itself. */
  async loadActivities() {
    const ids = this.grid.allRows().filter((row) => isUnfinished(row.status)).map((row) => row.id);
    const answer = ids.length ? await this.ask("activities", { ids }) : { activities: {} };
    if (!answer) return;
    this.activitiesAt = Date.now();
    const activities = new Map(Object.entries(answer.activities));
    if (JSON.stringify([...activities]) === JSON.stringify([...this.activities])) return;
    this.activities = activities;
    this.showRows();
  }

  /**
   * A search reads part after part, each short, until the page is full or all was searched. Return
   * whether it has come to its end.
   * @param {Page} first
   * @param {boolean} isPoll the rows that are shown stay until all have been read again
   */
  async searchOn(first, isPoll) {
    let [page, { rows }] = [first, first];
    let parts = 1;
    for (; page.searched_to && rows.length < this.view.size; parts += 1) {
      const next = await this.ask("page", { view: this.view, after: page.last,
        limit: this.view.size - rows.length, part: parts });
      if (!next || next.same) return false;
      this.status.updated(next);
      page = next;
      rows = rows.concat(next.rows);
      if (!isPoll) this.showPage(page, rows);
    }
    this.parts = parts;
    const { more, last, searched_to } = page;
    if (isPoll && JSON.stringify([rows, more, last, searched_to])
      !== JSON.stringify([this.rows, this.page.more, this.page.last, this.page.searched_to])) {
      this.showPage(page, rows);
    }
    return true;
  }

  /** @param {1 | -1} direction */
  turnPage(direction) {
    if (direction > 0) {
      this.previousCursors.push(this.cursor);
      this.cursor = this.page.last;
    } else {
      this.cursor = this.previousCursors.pop() ?? [];
    }
    this.grid.focusedId = null;
    return this.load();
  }

  /** @param {Record<string, number> | null} counts null: not known */
  showCounts(counts) {
    this.counts = counts;
    this.statusBar.update(counts, true);
    this.showRange();
    this.showSelection();
  }

  async loadChoices() {
    const answer = await this.ask("choices", {});
    return answer?.choices;
  }

  async toggleFilters() {
    this.filterButton.setAttribute("aria-expanded", String(await this.filters.toggle()));
  }

  pollInterval() {
    const share = this.parts > 1 ? SEARCH_SHARE : 0;
    return Math.max(POLL_MS, POLL_SHARE * (this.status.took ?? 0), share * this.readTook);
  }

  refresh() {
    this.polling.touch();
    return this.reload(true);
  }

  /** @param {boolean} all also what has probably not changed */
  async reload(all) {
    const counts = all || Date.now() - this.countedAt > COUNT_SHARE * this.countTook;
    await this.load({ stamp: all ? null : this.stamp, counts });
    if (Date.now() - this.activitiesAt > ACTIVITY_MS) await this.loadActivities();
    for (const [id, details] of this.openDetails) {
      const row = this.grid.row(id);
      if (all || !row || details.status !== row.status || row.status === "PENDING") {
        await this.loadDetails(id);
      }
    }
  }

  // --- details and children ----------------------------------------------------------------------

  /** @param {string} id */
  toggleDetails(id) {
    if (!this.openDetails.delete(id)) {
      this.openDetails.set(id, {});
      this.loadDetails(id);
    }
    this.showRows();
  }

  /** @param {string} id */
  async loadDetails(id) {
    try {
      const found = await this.channel.ask("details",
        { id, stamp: this.openDetails.get(id)?.stamp }, `details ${id}`);
      if (!found || found.same || !this.openDetails.has(id)) return;
      this.openDetails.set(id, { found, stamp: found.stamp, status: found.row.status });
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      if (!this.openDetails.has(id)) return;
      this.openDetails.set(id, { error: error.message });
    }
    this.showRows();
  }

  /** @param {Row} row */
  async toggleChildren(row) {
    if (!this.grid.children.delete(row.id)) {
      const answer = await this.ask("children", { id: row.id }, `children ${row.id}`);
      if (!answer) return;
      this.grid.children.set(row.id, answer);
    }
    this.showRows();
  }

  // --- selection ---------------------------------------------------------------------------------

  selected() {
    return this.model.get("selected");
  }

  /** Whether all workflows that match are selected, not only those whose IDs are known here. */
  get isAllSelected() {
    return this.model.get("_select_all");
  }

  /**
   * @param {string[]} ids
   * @param {boolean} [all] all workflows that match
   */
  select(ids, all = false) {
    this.model.set("selected", ids);
    this.model.set("_select_all", all);
    this.model.save_changes();
    this.showSelection();
  }

  /**
   * @param {string} id
   * @param {boolean} [isRange] together with the rows between it and the one before
   */
  toggleSelected(id, isRange = false) {
    const ids = this.selected();
    const isSelected = ids.includes(id);
    if (isRange) this.addSelected(this.grid.range(this.anchor, id));
    else this.select(isSelected ? ids.filter((other) => other !== id) : [...ids, id]);
    this.anchor = id;
  }

  /** @param {readonly string[]} ids */
  addSelected(ids) {
    this.select([...new Set([...this.selected(), ...ids])]);
  }

  /** @param {boolean} isSelected */
  selectPage(isSelected) {
    const page = this.rows.map((row) => row.id);
    const others = this.selected().filter((id) => !page.includes(id));
    this.select(isSelected ? [...others, ...page] : others);
  }

  showSelection() {
    const ids = new Set(this.selected());
    const total = this.total();
    const all = this.isAllSelected;
    const shown = this.grid.allRows().filter((row) => ids.has(row.id)).length;
    this.grid.showSelection();
    this.selection.hidden = !ids.size;
    // Which actions are possible depends on the statuses of the selected rows.
    const statuses = this.rows.map((row) => ids.has(row.id) && row.status).join();
    this.actions.setWorkflows([...ids], all ? `all ${JSON.stringify([this.view, this.counts])}` : statuses);
    const isPage = this.rows.length > 0 && this.rows.every((row) => ids.has(row.id));
    const more = total ?? (this.page.more ? Infinity : 0);
    const limit = this.start.max_all;
    replace(this.selection,
      el("b", {}, all ? `All ${total === null ? "" : formatCount(total)} that match selected`
        : `${formatCount(ids.size)} selected`),
      !all && shown < ids.size && el("span", { class: shown ? "dn-muted" : "dn-warn" },
        `${shown ? formatCount(shown) : "none"} shown here`),
      all && (total ?? 0) > limit
        && el("span", { class: "dn-muted" }, `actions take the first ${formatCount(limit)}`),
      !all && isPage && more > ids.size && button(total === null ? "Select all that match"
        : `Select all ${formatCount(total)} that match`, "Also those on other pages",
      () => this.select([...ids], true)),
      this.actions.bar, el("span", { class: "dn-space" }),
      button("Code", "Show and copy the Python code that returns the selected rows",
        () => this.showCode(true)),
      button("Clear", "Clear the selection", () => this.select([])));
  }

  /** @param {boolean} [selection] of the selected rows alone */
  async showCode(selection = false) {
    const answer = await this.ask("code", { view: this.view, selection });
    if (!answer) return;
    const isCopied = await copy(answer.text);
    replace(this.code, el("pre", { tabindex: "0" }, answer.text),
      el("span", { class: "dn-note" }, copyFeedback(isCopied)),
      iconButton("×", "Close", () => (this.code.hidden = true)));
    this.code.hidden = false;
  }

  // --- keyboard ----------------------------------------------------------------------------------

  /** Close what was opened last: a plan, the code, the filters; return whether there was anything. */
  dismiss() {
    if (this.actions.dismiss()) this.grid.focusRow(this.grid.focusedId, true);
    else if (!this.code.hidden) this.code.hidden = true;
    else if (!this.filters.panel.hidden) {
      this.toggleFilters();
      focus(this.filterButton);
    } else return false;
    return true;
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const isTyping = closest(event, "input, select, textarea");
    const isInSearch = event.target === this.search;
    if (event.key === "/" && !isTyping) {
      this.search.focus();
      event.preventDefault();
    } else if (event.key === "Escape" && this.dismiss()) {
      event.preventDefault();
    } else if (event.key === "Escape" && isInSearch && this.search.value) {
      this.search.value = "";
      this.onSearchInput();
    } else if (event.key === "ArrowDown" && isInSearch) {
      this.grid.focusRow(this.rows[0]?.id, true);
      event.preventDefault();
    }
  }

  close() {
    this.model.off("change:selected", this.onSelected);
    this.model.off("change:_select_all", this.onSelected);
    this.channel.close();
    this.polling.close();
    this.status.close();
    for (const cleanup of this.cleanups) cleanup();
  }
}

/** @param {RenderProps<ExploreTraits>} props */
function render(props) {
  return mount(props, "dn-explore", (model, root) => new Explore(model, root));
}

export default { render };
