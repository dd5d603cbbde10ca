// The console: the list, the board and one run in one view. Each leads to the others, Back returns,
// and in a web page the URL's fragment keeps the place.
import { append, button, closest, el, focus, focusedElement, replace } from "./dom.js";
import { mount } from "./fallback.js";
import { leafName, shortenId } from "./format.js";
import { KernelChannel } from "./kernel_channel.js";
import { formatPlace, parsePlace } from "./place.js";
import { StatusLine } from "./status_line.js";
import { Board } from "./board.js";
import { Controls } from "./controls.js";
import { Explore } from "./explore.js";
import { Inspect } from "./inspect.js";
/** @import {Callback, ConsoleTraits, Model, Navigation, PartName, Place, RenderProps} from "./types.js" */

const TITLE = "DBOS workflows";
const MAX_HISTORY = 100;
/** @type {readonly (readonly [PartName, string, string])[]} */
const PARTS = [
  ["list", "Workflows", "The list of workflows (1)"],
  ["board", "Board", "Queues, throughput and failures (2)"],
  ["schedules", "Schedules", "The schedules, to pause, resume, trigger and backfill them (3)"],
  ["run", "Run", "The run that was opened last (4)"],
];

const PART_NAMES = PARTS.map(([part]) => part);

/** The model of one part, in the model of the console. It behaves as a model of its own. */
class PartModel {
  /**
   * @param {Model<any>} model
   * @param {PartName} part
   * @param {object} start
   * @param {object} [traits] those that the model may not have received yet
   */
  constructor(model, part, start, traits = {}) {
    this.model = model;
    this.part = part;
    this.trait = `_${part}`;
    this.fixed = new Map(Object.entries({ _start: start, _token: "" }));
    this.initial = new Map(Object.entries(traits));
    /** @type {Map<string, Set<Callback>>} by trait */
    this.callbacks = new Map();
    this.known = model.get(this.trait);
    this.onChange = () => this.emit();
    model.on(`change:${this.trait}`, this.onChange);
  }

  /** @param {string} name */
  get(name) {
    const traits = this.model.get(this.trait);
    return this.fixed.get(name) ?? (name in traits ? traits[name] : this.initial.get(name));
  }

  /**
   * @param {string} name
   * @param {unknown} value
   */
  set(name, value) {
    this.model.set(this.trait, { ...this.model.get(this.trait), [name]: value });
  }

  save_changes() {
    this.model.save_changes();
  }

  /**
   * @param {string} event
   * @param {Callback} callback
   */
  on(event, callback) {
    if (!event.startsWith("change:")) this.model.on(event, callback);
    else this.of(event).add(callback);
  }

  /**
   * @param {string} event
   * @param {Callback} callback
   */
  off(event, callback) {
    if (!event.startsWith("change:")) this.model.off(event, callback);
    else this.of(event).delete(callback);
  }

  /** @param {string} event */
  of(event) {
    const name = event.slice("change:".length);
    const callbacks = this.callbacks.get(name) ?? new Set();
    this.callbacks.set(name, callbacks);
    return callbacks;
  }

  emit() {
    const before = this.known;
    this.known = this.model.get(this.trait);
    for (const [name, callbacks] of this.callbacks) {
      if (JSON.stringify(before[name]) === JSON.stringify(this.known[name])) continue;
      for (const callback of [...callbacks]) callback();
    }
  }

  /** @param {object} message */
  send(message) {
    this.model.send({ ...message, to: this.part });
  }

  close() {
    this.model.off(`change:${this.trait}`, this.onChange);
  }
}

class Console {
  /**
   * @param {Model<ConsoleTraits>} model
   * @param {HTMLElement} root
   */
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.start = model.get("_start");
    this.status = new StatusLine(() => this.retry());
    this.channel = new KernelChannel(model, this.status);
    /** @type {Place[]} the places that Back returns to */
    this.trail = [];
    this.lastDepth = 0;
    /** @type {Place} */
    this.place = { view: "list" };
    /** How often a place was chosen: an answer that an earlier choice waited for is out of date. */
    this.turn = 0;
    /** Whether a place is being shown: the URL still names the one before. */
    this.isNavigating = false;
    /** @type {Place} the place that could not be opened */
    this.failed = this.place;
    /** @type {PartModel[]} */
    this.models = [];
    this.roots = {
      list: el("div", { class: "dn-view dn-explore" }),
      board: el("div", { class: "dn-view dn-board", hidden: true }),
      run: el("div", { class: "dn-view dn-inspect", hidden: true }),
      schedules: el("div", { class: "dn-view dn-controls", hidden: true }),
    };
    this.tabs = el("nav", { class: "dn-console-tabs", "aria-label": "Views" });
    this.list = new Explore(this.partModel("list", this.start.list), this.roots.list, this.navigation());
    /** @type {Board | null} read when it is first shown */
    this.board = null;
    /** @type {Inspect | null} */
    this.run = null;
    /** @type {Controls | null} */
    this.schedules = null;
    append(root, this.tabs, this.status.banner, PART_NAMES.map((part) => this.roots[part]));
    this.onKeyDown = (/** @type {KeyboardEvent} */ event) => this.onKey(event);
    root.addEventListener("keydown", this.onKeyDown);
    // A web page is the console's own: its keys work wherever the focus is.
    if (this.start.sync_url) document.addEventListener("keydown", this.onKeyDown);
    this.onPlace = () => this.followKernel();
    model.on("change:_place", this.onPlace);
    this.onPopState = () => this.followUrl();
    if (this.start.sync_url) addEventListener("popstate", this.onPopState);
    this.showTabs();
    this.begin();
  }

  /** Show the place of the URL, otherwise that of the kernel. */
  async begin() {
    if (this.start.sync_url) hideToken();
    const place = this.start.sync_url ? parsePlace(location.hash) : null;
    const { view, id = "" } = this.model.get("_place");
    const isShown = await this.show(place ?? { view, id });
    if (!isShown && this.turn === 1) await this.show({ view: "list" });
    this.showTabs(); // the name of the run is known now
  }

  /**
   * @param {PartName} part
   * @param {object} start
   * @param {object} [traits]
   * @returns {Model<any>}
   */
  partModel(part, start, traits) {
    const model = new PartModel(this.model, part, start, traits);
    this.models.push(model);
    return /** @type {Model<any>} */ (/** @type {unknown} */ (model));
  }

  /** @returns {Navigation} */
  navigation() {
    return {
      open: (id, node) => this.go({ view: "run", id, node }),
      filter: (filters) => this.go({ view: "list", list: { ...this.start.list.view, ...filters } }),
      changed: () => this.onChanged(),
    };
  }

  // --- places --------------------------------------------------------------------------------------

  /**
   * Go to another place; Back returns from it.
   * @param {Place} place
   */
  async go(place) {
    if (formatPlace(this.current()) === formatPlace(place)) return;
    this.status.clearError();
    if (!await this.canShow(place)) return;
    const before = this.current();
    const loading = this.showPart(place);
    // Before the data come: Back leaves what is still being loaded, too.
    if (this.start.sync_url) {
      this.lastDepth = this.depth() + 1;
      history.pushState({ depth: this.lastDepth }, "", formatPlace(this.current()));
    } else {
      this.trail.push(before);
      if (this.trail.length > MAX_HISTORY) this.trail.shift();
    }
    this.showTabs();
    await loading;
  }

  /** How many places Back can return to. */
  depth() {
    return this.start.sync_url ? Number(history.state?.depth ?? 0) : this.trail.length;
  }

  async back() {
    if (!this.depth()) return;
    this.status.clearError();
    if (this.start.sync_url) {
      history.back(); // fires popstate
      return;
    }
    const place = this.trail.pop();
    if (place) await this.show(place);
    this.showTabs();
  }

  /**
   * Show a place; return whether it exists.
   * @param {Place} place
   * @returns {Promise<boolean>}
   */
  async show(place) {
    if (!await this.canShow(place)) return false;
    await this.showPart(place);
    return true;
  }

  /** @param {Place} place one that exists */
  async showPart(place) {
    const { turn } = this;
    const isOtherPart = this.place.view !== place.view;
    const hasFocus = this.start.sync_url || this.root.contains(focusedElement(this.root));
    this.place = place;
    for (const part of PART_NAMES) this.roots[part].hidden = part !== place.view;
    this.showTabs();
    this.isNavigating = true;
    const loading = this.loadPart(place);
    this.isNavigating = false;
    this.tellKernel();
    await loading;
    // Who has gone on in the meantime keeps the focus where it is.
    if (isOtherPart && hasFocus && turn === this.turn
      && !this.roots[place.view].contains(focusedElement(this.root))) this.focusPart();
  }

  /** @param {Place} place */
  async loadPart(place) {
    if (place.view === "list" && place.list) await this.list.setView(place.list);
    if (place.view === "board") this.showBoard(place.window);
    if (place.view === "schedules") this.showSchedules();
    if (place.view === "run") await this.run?.openAt(place.id ?? "", place);
  }

  /**
   * Whether a place exists, and is still wanted when that is known. To see it, the kernel reads the
   * run; the part of runs is created for the first one.
   * @param {Place} place
   * @returns {Promise<boolean>}
   */
  async canShow(place) {
    const turn = this.turn += 1;
    const { view, id = "" } = place;
    if (view !== "run" || (this.run?.id === id && this.run.facts)) return true;
    const answer = await this.status.showErrorsOf(this.channel.ask("open", { id }));
    if (turn !== this.turn) return false;
    if (!answer) {
      this.failed = place;
      return false;
    }
    this.roots.run.hidden = false; // its width decides how it is drawn
    this.run ??= new Inspect(this.partModel("run", answer.start, answer.traits), this.roots.run,
      this.navigation());
    return true;
  }

  /** @param {string} [period] one that does not exist, as an address may name, is ignored */
  showBoard(period) {
    this.board ??= new Board(this.partModel("board", this.start.board), this.roots.board, this.navigation());
    if (period && this.start.board.windows.includes(period)) this.board.setWindow(period);
  }

  showSchedules() {
    if (this.schedules) this.schedules.load();
    else this.schedules = new Controls(this.partModel("schedules", this.start.schedules), this.roots.schedules);
  }

  /** Try again what could not be opened. */
  retry() {
    return this.go(this.failed);
  }

  /** @returns {Place} where the view is now */
  current() {
    const { view } = this.place;
    if (view === "list") return { view, list: this.list.changedView() };
    if (view === "board") return { view, window: this.board?.model.get("window") };
    if (view === "schedules") return { view };
    return this.run ? { view, ...this.run.whereabouts() } : { view };
  }

  /** Filters, tab or selection have changed within a part. */
  onChanged() {
    if (this.isNavigating) return;
    if (this.start.sync_url) history.replaceState(history.state, "", formatPlace(this.current()));
    this.showTabs();
  }

  async followUrl() {
    this.status.clearError();
    // An address that was typed has no state yet.
    if (!history.state) history.replaceState({ depth: this.lastDepth + 1 }, "");
    this.lastDepth = this.depth();
    await this.show(parsePlace(location.hash) ?? { view: "list" });
    // What the address names may not exist: from now on it names what is shown.
    this.onChanged();
  }

  followKernel() {
    const { view, id = "", by } = this.model.get("_place");
    if (by === "kernel") this.go({ view, id });
  }

  tellKernel() {
    const { number = 0 } = this.model.get("_place");
    this.model.set("_place", { view: this.place.view, id: this.run?.id ?? "", by: "browser", number });
    this.model.save_changes();
  }

  // --- showing -------------------------------------------------------------------------------------

  showTabs() {
    const { view } = this.place;
    const row = this.run?.facts?.row;
    const labels = { list: "Workflows", board: "Board", schedules: "Schedules", run: row ? leafName(row.name ?? "workflow") : "" };
    replace(this.tabs,
      button("‹ Back", "Back to what was shown before (Escape)", () => this.back(),
        { disabled: !this.depth() }),
      PARTS.filter(([part]) => part !== "run" || this.run).map(([part, , title]) => el("button", {
        type: "button", class: "dn-console-tab", "aria-current": view === part && "page",
        title: part === "run" && row ? `${row.name ?? "workflow"} ${row.id}. ${title}` : title,
        on: { click: () => this.goToTab(part) },
      }, el("span", { class: "dn-tab-name" }, labels[part]), part === "run" && this.run
        && el("code", {}, shortenId(this.run.id, 20, row?.parent_workflow_id)))),
      el("span", { class: "dn-space" }),
      this.start.list.read_only && el("span", { class: "dn-filter", title: "Nothing can be changed from here" },
        "read-only"),
      el("span", { class: "dn-muted dn-location", title: this.start.location }, this.start.location));
    if (this.start.sync_url) {
      document.title = view === "run" && row ? `${labels.run} · ${row.status}` : `${labels[view]} · ${TITLE}`;
    }
  }

  /**
   * Show a part as it was left.
   * @param {PartName} part
   */
  async goToTab(part) {
    if (part === this.place.view) return;
    await this.go(part === "run" && this.run ? { view: part, ...this.run.whereabouts() } : { view: part });
  }

  focusPart() {
    const root = this.roots[this.place.view];
    focus(["h2[tabindex]", ".dn-row[tabindex='0']", "input[type=search]", "button"]
      .map((selector) => root.querySelector(selector)).find(Boolean));
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const isTyping = closest(event, "input:not([type=checkbox]), select, textarea");
    if (event.defaultPrevented || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    // The keys of the part that is shown act also where nothing within it has the focus.
    const { view } = this.place;
    if (!closest(event, ".dn-console > .dn-view")) {
      if (view === "list") this.list.onKey(event);
      else if (view === "run") this.run?.onKey(event);
      if (event.defaultPrevented) return;
    }
    const part = PARTS[Number(event.key) - 1]?.[0];
    if (event.key === "Escape" && this.dismissPart()) event.preventDefault();
    else if (event.key === "Escape" && this.depth()) this.back();
    else if (part && (part !== "run" || this.run)) this.goToTab(part);
    else return;
    event.preventDefault();
  }

  /** Close a plan or form of the board or the schedules; return whether there was one. */
  dismissPart() {
    const { view } = this.place;
    return Boolean(view === "board" ? this.board?.actions.dismiss()
      : view === "schedules" && this.schedules?.dismiss());
  }

  close() {
    this.model.off("change:_place", this.onPlace);
    removeEventListener("popstate", this.onPopState);
    document.removeEventListener("keydown", this.onKeyDown);
    this.channel.close();
    this.status.close();
    for (const part of [this.list, this.board, this.schedules, this.run]) part?.close();
    for (const model of this.models) model.close();
  }
}

/** Remove the server's token from the address, which people share; a cookie holds it from now on. */
function hideToken() {
  const url = new URL(location.href);
  if (!url.searchParams.has("token")) return;
  url.searchParams.delete("token");
  history.replaceState(history.state, "", url);
}

/** @param {RenderProps<ConsoleTraits>} props */
function render(props) {
  return mount(props, "dn-console", (model, root) => new Console(model, root));
}

export default { render };
