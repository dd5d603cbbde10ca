// The list of workflows: what is asked, the rows that came, and what is done with them.
import { copy, el, followTheme, put, replace } from "./dom.js";
import { place } from "./fallback.js";
import { count, exact } from "./format.js";
import { Link } from "./kernel_channel.js";
import { Live } from "./polling.js";
import { State } from "./status_line.js";
import { Actions } from "./actions.js";
import { details } from "./details.js";
import { filterPanel, statusBar } from "./filters.js";
import { Grid } from "./grid.js";

const TYPING = 90;
const BETWEEN = 250; // so that no more than four questions a second come of typing
const ASKING = 2000;
const CLOCK = 5000;
const COUNTS = 15000;
const MODES = [
  ["flat", "List", "Every workflow that matches"],
  ["tree", "Tree", "Children below their parents"],
  ["queued", "Enqueued", "What waits or runs on queues, in the order it will be served"],
];

class Explore {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.start = model.get("_start");
    this.view = structuredClone(this.start.view);
    this.state = new State(() => this.refresh());
    this.link = new Link(model, this.state);
    this.live = new Live(root, model, {
      now: () => this.now(),
      clock: CLOCK,
      wait: () => Math.max(ASKING, 20 * (this.state.took ?? 0)),
      ready: () => this.link.idle("page"),
      ask: () => this.askAgain(false),
      shown: () => this.state.show(),
    });
    this.live.button.title = "Ask again every two seconds while this is seen";
    this.rows = [];
    this.open = new Map(); // what is told of opened rows, and its element
    this.before = []; // where the pages before this one began
    this.after = [];
    this.page = { more: false, last: [] };
    this.grid = new Grid({
      now: () => this.now(),
      mode: () => this.view.mode,
      sorted: () => this.sorted(),
      sort: (column) => this.sort(column),
      toggle: (id) => this.toggle(id),
      unfold: (row) => this.unfold(row),
      pick: (id) => this.pick(id),
      pickAll: (checked) => this.pickAll(checked),
      selected: () => this.selected(),
      opened: (row, columns) => this.opened(row, columns),
      isOpen: (id) => this.open.has(id),
      turn: (by) => ((by > 0 ? this.older : this.newer).disabled ? null : this.turn(by)),
    });
    this.build();
    this.ticked = () => this.showPicked();
    model.on("change:selected", this.ticked);
    this.unfollow = followTheme(root);
    this.load().then(() => this.count());
  }

  now() {
    return this.state.now();
  }

  try(answer) {
    return this.state.try(answer);
  }

  // --- what stands there ---------------------------------------------------------------------

  build() {
    const id = `dn-${Math.random().toString(36).slice(2, 9)}`;
    this.search = el("input", { type: "search", class: "dn-search", spellcheck: "false",
      placeholder: "Search ID, name, user, queue, error", "aria-label": "Search",
      value: this.view.search ?? "" });
    this.search.addEventListener("input", () => this.typed());
    this.modes = el("div", { class: "dn-segments", role: "group", "aria-label": "View" });
    this.statuses = statusBar(this.view, (part) => this.change(part));
    this.filters = filterPanel(this.start, this.view, (part) => this.change(part),
      () => this.choices(), id);
    this.filterButton = this.button("Filter", "More filters", () => this.toggleFilters());
    this.filterButton.setAttribute("aria-expanded", "false");
    this.codeBox = el("div", { class: "dn-code", hidden: true });
    this.picked = el("div", { class: "dn-picked", hidden: true, role: "group",
      "aria-label": "Selected workflows" });
    this.actions = new Actions(this.start.forbidden,
      (kind, question, lane) => this.try(this.link.ask(kind, question, lane)),
      () => this.refresh(), (id) => this.find(id));
    this.actions.bar.hidden = Boolean(this.start.read_only);
    this.said = el("span", { class: "dn-said", role: "status" });
    this.newer = this.button("‹", "Page before", () => this.turn(-1));
    this.older = this.button("›", "Next page", () => this.turn(1));
    this.sizes = el("select", { class: "dn-select", "aria-label": "Rows on a page" },
      this.start.sizes.map((size) => el("option", { value: size }, size)));
    this.sizes.value = this.view.size;
    this.sizes.addEventListener("change", () => this.change({ size: Number(this.sizes.value) }));
    put(this.root,
      el("div", { class: "dn-top" }, this.search, this.filters.ages, this.filterButton, this.modes,
        el("span", { class: "dn-space" }), this.live.button,
        this.button("Refresh", "Ask again now", () => this.refresh()),
        this.button("Code", "Show and copy the Python that gives these rows", () => this.code())),
      this.statuses.node, this.filters.panel, this.filters.chips, this.state.banner,
      this.codeBox,
      this.picked, this.actions.panel,
      el("div", { class: "dn-scroll" }, this.grid.node),
      el("div", { class: "dn-foot" }, this.newer, this.said, this.older, this.sizes,
        el("span", { class: "dn-space" }), this.state.line));
    this.root.addEventListener("keydown", (event) => this.shortcut(event));
    this.showMode();
    this.grid.show([], this.emptyText());
    this.showPicked();
  }

  button(label, title, act) {
    return el("button", { type: "button", class: "dn-button", title, "aria-label": title,
      on: { click: act } }, label);
  }

  showMode() {
    replace(this.modes, MODES.map(([mode, label, title]) => el("button", {
      type: "button",
      title: mode === "tree" && !this.start.has_parents
        ? "This database does not record parents" : title,
      disabled: mode === "tree" && !this.start.has_parents,
      "aria-pressed": String(this.view.mode === mode),
      on: { click: () => this.change({ mode, sort: "", descending: null }) },
    }, label)));
  }

  sorted() {
    const queued = this.view.mode === "queued";
    const key = this.view.sort || (queued ? "queue_position" : "created_at");
    return [key, this.view.descending ?? (key === "created_at" && !queued)];
  }

  sort(column) {
    const [sorted, descending] = this.sorted();
    const largestFirst = column.key === "created_at" || column.key === "duration";
    const first = column.reversed ? false : largestFirst;
    this.change({ sort: column.key, descending: sorted === column.key ? !descending : first });
  }

  showRows() {
    this.grid.show(this.rows, this.emptyText());
    this.showSaid();
    this.showPicked();
  }

  emptyText() {
    if (this.page.searched_to) return "Searching older workflows …";
    if (!this.loaded) return "Reading …";
    const { search, status, start_time: since, end_time: until } = this.view;
    if (search || status?.length || since || until || this.filters.chips.childElementCount) {
      return "No workflow matches.";
    }
    return this.view.mode === "queued" ? "Nothing waits or runs on a queue." : "There is no workflow yet.";
  }

  opened(row, columns) {
    const told = this.open.get(row.id);
    if (!told) return null;
    told.node ??= el("tr", { class: "dn-opened" }, el("td", { colspan: columns }, told.found
      ? details(told.found, this.now(), {
        find: (id) => this.find(id),
        copy,
        moreSteps: (after) => this.try(this.link.ask("steps", { id: row.id, after }, `s${row.id}`)),
      })
      : el("p", { class: "dn-note" }, told.failed ?? "Reading …")));
    return told.node;
  }

  showSaid() {
    const begin = this.before.length * this.view.size + 1;
    const end = begin + this.rows.length - 1;
    const total = this.total();
    let said = this.rows.length ? `${count(begin)}–${count(end)}` : "none";
    if (total !== null && this.rows.length) said += ` of ${count(total)}`;
    else if (this.page.more && this.rows.length) said += " of more";
    if (this.page.searched_to) said += ` · searched back to ${exact(this.page.searched_to).slice(0, 10)}`;
    if (this.said.textContent !== said) this.said.textContent = said;
    this.newer.disabled = !this.before.length;
    this.older.disabled = !this.page.more || !this.rows.length;
    this.grid.node.setAttribute("aria-rowcount", total ?? -1);
  }

  total() {
    if (!this.counts || this.view.mode === "tree") return null;
    const wanted = this.view.status?.length ? this.view.status : Object.keys(this.counts);
    return wanted.reduce((sum, status) => sum + (this.counts[status] ?? 0), 0);
  }

  // --- asking --------------------------------------------------------------------------------

  change(part) {
    Object.assign(this.view, part);
    this.before = [];
    this.after = [];
    if ("mode" in part) {
      this.showMode();
      this.grid.kids.clear();
      this.open.clear();
    }
    this.filters.update();
    this.statuses.update(this.counts);
    return this.load().then(() => this.count());
  }

  typed() {
    const since = Date.now() - (this.asked ?? 0);
    this.live.later("typing", Math.max(TYPING, BETWEEN - since), () => {
      this.asked = Date.now();
      this.change({ search: this.search.value.trim() });
    });
  }

  find(id) {
    this.search.value = id;
    this.open.clear();
    this.change({ search: id, status: [], mode: this.view.mode === "queued" ? "flat" : this.view.mode });
  }

  question() {
    return { view: this.view, after: this.after };
  }

  async load(stamp = null) {
    const page = await this.try(this.link.ask("page", { ...this.question(), stamp }));
    if (!page) return;
    this.state.read(page);
    if (page.same) return;
    this.stamp = page.stamp;
    this.loaded = true;
    this.page = page;
    this.rows = page.rows;
    this.showRows();
    await this.searchOn();
  }

  // A text is looked for in parts, each short, until the page is full or all was looked through.
  async searchOn() {
    for (let part = 1; this.page.searched_to && this.rows.length < this.view.size; part += 1) {
      const page = await this.try(this.link.ask("page",
        { view: this.view, after: this.page.last, limit: this.view.size - this.rows.length, part }));
      if (!page) return;
      this.state.read(page);
      this.page = page;
      this.rows = this.rows.concat(page.rows);
      this.showRows();
    }
  }

  turn(by) {
    if (by > 0) {
      this.before.push(this.after);
      this.after = this.page.last;
    } else {
      this.after = this.before.pop() ?? [];
    }
    this.grid.focused = null;
    return this.load();
  }

  async count() {
    // To count what a text is in would read every row.
    if (this.view.search || this.view.error || this.view.attributes) {
      this.counts = null;
    } else {
      const view = { ...this.view, status: [] };
      const answer = await this.try(this.link.ask("counts", { view }));
      if (!answer) return;
      this.counts = answer.counts;
      this.counted = Date.now();
      this.countTook = answer.took;
    }
    this.statuses.update(this.counts);
    this.showSaid();
  }

  async choices() {
    const answer = await this.try(this.link.ask("choices"));
    return answer?.choices;
  }

  async toggleFilters() {
    const shown = await this.filters.toggle();
    this.filterButton.setAttribute("aria-expanded", String(shown));
  }

  refresh() {
    this.live.touch();
    return this.askAgain(true);
  }

  async askAgain(all) {
    // A search that came in parts is not asked again by itself.
    if (all || !this.view.search) await this.load(all ? null : this.stamp);
    for (const [id, told] of this.open) {
      const row = this.grid.row(id);
      if (all || !row || told.status !== row.status || row.status === "PENDING") await this.tell(id);
    }
    const due = Math.max(COUNTS, 50 * (this.countTook ?? 0));
    if (all || Date.now() - (this.counted ?? 0) > due) await this.count();
  }

  // --- opening -------------------------------------------------------------------------------

  toggle(id) {
    if (this.open.delete(id)) {
      this.showRows();
      return;
    }
    this.open.set(id, {});
    this.tell(id);
    this.showRows();
  }

  async tell(id) {
    const told = this.open.get(id);
    try {
      const found = await this.link.ask("details", { id, stamp: told?.found?.stamp }, `d${id}`);
      if (!found || found.same || !this.open.has(id)) return;
      this.open.set(id, { found, status: found.row.status });
    } catch (error) {
      if (!this.open.has(id)) return;
      this.open.set(id, { failed: error.message });
    }
    this.showRows();
  }

  async unfold(row) {
    if (this.grid.kids.delete(row.id)) {
      this.showRows();
      return;
    }
    const answer = await this.try(this.link.ask("children", { id: row.id }, `c${row.id}`));
    if (!answer) return;
    this.grid.kids.set(row.id, answer);
    this.showRows();
  }

  // --- selecting -----------------------------------------------------------------------------

  selected() {
    return this.model.get("selected");
  }

  select(ids) {
    this.model.set("selected", ids);
    this.model.save_changes();
    this.showPicked();
  }

  pick(id) {
    const ids = this.selected();
    this.select(ids.includes(id) ? ids.filter((one) => one !== id) : [...ids, id]);
  }

  pickAll(checked) {
    const here = this.rows.map((row) => row.id);
    const others = this.selected().filter((id) => !here.includes(id));
    this.select(checked ? [...others, ...here] : others);
  }

  showPicked() {
    const ids = new Set(this.selected());
    this.grid.showPicked();
    this.picked.hidden = !ids.size;
    // Whether an action is possible changes with what is shown of the selected ones.
    const statuses = this.rows.map((row) => ids.has(row.id) && row.status).join();
    this.actions.about([...ids], statuses);
    replace(this.picked, el("b", {}, `${count(ids.size)} selected`), this.actions.bar,
      el("span", { class: "dn-space" }),
      this.button("Code", "Show and copy the Python that gives the selected rows",
        () => this.code(true)),
      this.button("Clear", "Select nothing", () => this.select([])));
  }

  async code(selection = false) {
    const answer = await this.try(this.link.ask("code", { view: this.view, selection }));
    if (!answer) return;
    const copied = await copy(answer.text);
    replace(this.codeBox, el("pre", { tabindex: "0" }, answer.text),
      el("span", { class: "dn-note" }, copied ? "copied" : "select it, and copy"),
      this.button("×", "Close", () => (this.codeBox.hidden = true)));
    this.codeBox.hidden = false;
  }

  // --- by keyboard ---------------------------------------------------------------------------

  shortcut(event) {
    const typing = event.target.closest?.("input, select, textarea");
    if (event.key === "/" && !typing) {
      this.search.focus();
      event.preventDefault();
    } else if (event.key === "Escape" && event.target === this.search && this.search.value) {
      this.search.value = "";
      this.typed();
    } else if (event.key === "ArrowDown" && event.target === this.search) {
      this.grid.rove(this.rows[0]?.id, true);
      event.preventDefault();
    }
  }

  close() {
    this.model.off("change:selected", this.ticked);
    this.link.close();
    this.live.close();
    this.state.close();
    this.unfollow();
  }
}

function render({ model, el: host }) {
  const root = el("div", { class: "dn-view" });
  const end = place(root, host, model);
  const explore = new Explore(model, root);
  return () => {
    end();
    explore.close();
  };
}

export default { render };
