// The rows of the list, and moving through them by keyboard.
import { COLUMNS, identity, parentLink } from "./columns.js";
import { button, closest, el, focusedElement, hasModifier, icon, replace } from "./dom.js";
import { activityLine, errorLine, formatCount, idLabel } from "./format.js";
/** @import {Activity, Children, Column, Mode, Row} from "./types.js" */

/**
 * @typedef {object} GridOptions
 * @property {() => number} now
 * @property {() => Mode} mode
 * @property {() => [string, boolean]} sortOrder the sort key, and whether it descends
 * @property {(column: Column) => unknown} sort
 * @property {(id: string) => unknown} toggleDetails
 * @property {(row: Row) => unknown} toggleChildren
 * @property {(id: string, isRange: boolean) => unknown} toggleSelected
 * @property {(ids: readonly string[]) => unknown} addSelected
 * @property {(selected: boolean) => unknown} selectPage
 * @property {() => readonly string[]} selected
 * @property {(row: Row) => HTMLElement | null} details the open details of a row
 * @property {(id: string) => boolean} isOpen
 * @property {(id: string) => Activity | undefined} activity what an active workflow is doing
 * @property {((id: string) => unknown) | null} openWorkflow where a run can be shown
 * @property {(id: string) => unknown} openParent shows a parent's run or its row
 * @property {(direction: 1 | -1) => Promise<unknown> | null} turnPage null: there is no such page
 */

const CHEVRON = "M6 3.5L10.5 8L6 12.5";
const INDENT_PX = 20;
/** The highest ranks of the columns that stand beside the name, from narrow views to wide ones. */
const RANKS = [0, 1, 3, 4];

export class Grid {
  /** @param {GridOptions} options */
  constructor(options) {
    this.options = options;
    /** @type {readonly Row[]} */
    this.rows = [];
    /** @type {Map<string, Children>} of the rows that are expanded in the tree */
    this.children = new Map();
    /** @type {string | null} */
    this.focusedId = null;
    this.selectAll = el("input", { type: "checkbox" });
    this.head = el("thead", { role: "rowgroup" });
    this.body = el("tbody", { role: "rowgroup", on: { keydown: (event) => this.onKey(event) } });
    this.node = el("table", { class: "dn-list", "aria-label": "Workflows",
      "aria-multiselectable": "true" }, this.head, this.body);
  }

  get inTree() {
    return this.options.mode() === "tree";
  }

  /**
   * A row that is shown, at any depth.
   * @param {string} id
   */
  row(id) {
    return this.allRows().find((row) => row.id === id) ?? null;
  }

  /**
   * The IDs of the rows from one to another, as they are shown.
   * @param {string | null} from
   * @param {string} to
   */
  range(from, to) {
    const ids = this.lineElements().map((line) => line.dataset.id ?? "");
    const [begin, end] = [ids.indexOf(from ?? ""), ids.indexOf(to)].sort((a, b) => a - b);
    return begin === undefined || begin < 0 ? [to] : ids.slice(begin, (end ?? begin) + 1);
  }

  allRows() {
    return [this.rows, ...[...this.children.values()].map((below) => below.rows)].flat();
  }

  /** The columns of the mode, without optional ones that would be empty. */
  columns() {
    const rows = this.allRows();
    return COLUMNS[this.options.mode()].filter(({ optional, key }) =>
      !optional || rows.some((row) => row[/** @type {keyof Row} */ (key)] !== undefined));
  }

  // --- showing ---------------------------------------------------------------------------------

  /**
   * @param {readonly Row[]} rows
   * @param {string} emptyText shown where there is no row
   */
  show(rows, emptyText) {
    this.rows = rows;
    this.showHead();
    const active = focusedElement(this.node);
    const hadFocus = this.body.contains(active) && !active?.closest(".dn-opened");
    const lines = this.lines(rows, 1);
    if (!lines.length) lines.push(note(emptyText, 1));
    replace(this.body, lines);
    this.focusRow(this.focusedId, hadFocus && this.focusedId !== null);
  }

  /**
   * @param {readonly Row[]} rows
   * @param {number} level
   * @returns {HTMLElement[]}
   */
  lines(rows, level) {
    const columns = this.columns();
    return rows.flatMap((row) => {
      const below = this.children.get(row.id);
      const details = this.options.details(row);
      return [
        this.line(row, level, columns),
        ...(details ? [details] : []),
        ...(below ? this.lines(below.rows, level + 1) : []),
        ...(below?.left_out ? [note(`… and ${formatCount(below.left_out)} more`, level + 1)] : []),
      ];
    });
  }

  showHead() {
    const [key, descending] = this.options.sortOrder();
    this.node.setAttribute("role", this.inTree ? "treegrid" : "grid");
    this.node.dataset.sorted = key;
    this.selectAll = el("input", { type: "checkbox", "aria-label": "Select all on this page",
      on: { change: () => this.options.selectPage(this.selectAll.checked) } });
    const headings = this.columns().map((column) => {
      const isSorted = column.key === key;
      const isDown = column.reversed ? !descending : descending;
      return el("th", {
        scope: "col",
        role: "columnheader",
        class: column.number ? "n" : null,
        "data-rank": column.rank,
        "aria-sort": isSorted ? (isDown ? "descending" : "ascending") : null,
      }, el("button", { type: "button", title: `Sort by ${column.label}`,
        on: { click: () => this.options.sort(column) } }, column.label,
      el("span", { "aria-hidden": "true" }, isSorted ? (isDown ? " ↓" : " ↑") : "")));
    });
    replace(this.head, el("tr", { role: "row" },
      el("th", { class: "dn-check", role: "columnheader" }, this.selectAll), headings));
    for (const rank of RANKS) {
      const tracks = this.columns().filter((column) => column.rank <= rank)
        .map(({ track = "max-content" }) => track);
      this.node.style.setProperty(`--dn-tracks-${rank}`,
        ["max-content", ...tracks, "max-content"].join(" "));
    }
  }

  /**
   * @param {Row} row
   * @param {number} level
   * @param {readonly Column[]} columns
   */
  line(row, level, columns) {
    const now = this.options.now();
    const checkbox = el("input", { type: "checkbox", tabindex: "-1", "aria-label": `Select ${row.id}`,
      on: { click: (event) => this.options.toggleSelected(row.id, event.shiftKey) } });
    return el("tr", {
      class: "dn-row",
      tabindex: "-1",
      "data-id": row.id,
      "data-status": row.status,
      "aria-expanded": String(this.isExpanded(row)),
      "aria-level": this.inTree ? level : null,
      role: "row",
      style: `--dn-indent: ${(level - 1) * INDENT_PX}px`,
      on: {
        click: (event) => {
          if (closest(event, "button, input")) return;
          this.focusedId = row.id;
          // Selecting text with the pointer is not a click.
          if (!String(document.getSelection() ?? "")) this.options.toggleDetails(row.id);
        },
        focus: () => this.focusRow(row.id, false),
      },
    },
    el("td", { class: "dn-check", role: "gridcell" }, checkbox),
    columns.map((column) => column.main ? this.mainCell(row)
      : el("td", { class: column.number ? "n" : null, role: "gridcell", "data-rank": column.rank },
        column.show?.(row, now))),
    el("td", { class: "dn-open-cell", role: "gridcell" }, this.openButton(row)),
    valuesBelow(columns, row, { now, inTree: this.inTree, openParent: this.options.openParent }),
    activityCell(this.options.activity(row.id)),
    (row.error_type || row.error_message) && el("td", { class: "dn-across", role: "gridcell" },
      errorLine(row.error_type, row.error_message, "", row)));
  }

  /** @param {Row} row */
  mainCell(row) {
    const isParent = this.inTree && Boolean(row.children);
    const toggle = el("button", { type: "button", tabindex: "-1", class: "dn-toggle",
      "aria-label": isParent ? "Show children" : "Show details",
      "data-open": this.isExpanded(row),
      on: { click: (event) => {
        event.stopPropagation();
        this.focusedId = row.id;
        this.toggle(row);
      } } }, isParent || !this.inTree ? icon(CHEVRON) : null);
    return el("td", { class: "dn-main", role: "gridcell", "data-rank": 0 },
      el("div", { class: "dn-line" }, toggle, identity(row, this.inTree, this.options.openParent)));
  }

  /** @param {Row} row */
  openButton({ id }) {
    const { openWorkflow } = this.options;
    return openWorkflow && button("Open", `Show the graph of ${id}`, () => {
      this.focusRow(id, false); // where Back returns
      openWorkflow(id);
    }, { tabindex: "-1", class: "dn-button dn-open" });
  }

  /** @param {Row} row */
  isExpanded(row) {
    return this.inTree && row.children ? this.children.has(row.id) : this.options.isOpen(row.id);
  }

  /**
   * Expand or collapse: children where there are some, else the details.
   * @param {Row} row
   */
  toggle(row) {
    if (this.inTree && row.children) this.options.toggleChildren(row);
    else this.options.toggleDetails(row.id);
  }

  showSelection() {
    const ids = new Set(this.options.selected());
    for (const line of this.lineElements()) {
      const isSelected = ids.has(line.dataset.id ?? "");
      line.setAttribute("aria-selected", String(isSelected));
      const checkbox = line.querySelector(".dn-check input");
      if (checkbox instanceof HTMLInputElement) checkbox.checked = isSelected;
    }
    const count = this.rows.filter((row) => ids.has(row.id)).length;
    this.selectAll.checked = count > 0 && count === this.rows.length;
    this.selectAll.indeterminate = count > 0 && count < this.rows.length;
  }

  // --- keyboard --------------------------------------------------------------------------------

  /** @returns {HTMLElement[]} */
  lineElements() {
    return [...this.body.querySelectorAll("tr")].filter((line) => line.classList.contains("dn-row"));
  }

  /**
   * Make a row, or the first one, the one that Tab reaches.
   * @param {string | null | undefined} id
   * @param {boolean} takeFocus
   */
  focusRow(id, takeFocus) {
    const lines = this.lineElements();
    const target = lines.find((line) => line.dataset.id === id) ?? lines[0];
    for (const line of lines) line.tabIndex = line === target ? 0 : -1;
    this.focusedId = target?.dataset.id ?? null;
    if (takeFocus) target?.focus();
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const line = event.target;
    if (!(line instanceof HTMLElement) || !line.classList.contains("dn-row")) return;
    const lines = this.lineElements();
    const index = lines.indexOf(line);
    const row = this.row(line.dataset.id ?? "");
    if (!row) return;
    const isExpanded = this.isExpanded(row);
    const move = (/** @type {number} */ to) => {
      this.focusRow(lines[Math.max(0, Math.min(lines.length - 1, to))]?.dataset.id, true);
      if (event.shiftKey) this.options.addSelected(this.range(row.id, this.focusedId ?? row.id));
    };
    const turn = (/** @type {1 | -1} */ direction) =>
      this.options.turnPage(direction)?.then(() => this.focusRow(null, true));
    /** @type {Record<string, () => unknown>} */
    const keys = {
      ArrowDown: () => move(index + 1),
      ArrowUp: () => move(index - 1),
      Home: () => move(0),
      End: () => move(lines.length - 1),
      Enter: () => (this.options.openWorkflow ?? this.options.toggleDetails)(row.id),
      " ": () => this.options.toggleSelected(row.id, event.shiftKey),
      ArrowRight: () => isExpanded || this.toggle(row),
      ArrowLeft: () => isExpanded && this.toggle(row),
      PageDown: () => turn(1),
      PageUp: () => turn(-1),
    };
    const act = keys[event.key];
    if (!act || hasModifier(event)) return;
    event.preventDefault();
    this.focusedId = row.id;
    act();
  }
}

/**
 * @param {string} text
 * @param {number} level
 */
function note(text, level) {
  const cell = el("td", { class: "dn-whole dn-empty", role: "gridcell" }, text);
  cell.style.paddingLeft = `${2 + level}em`;
  return el("tr", { role: "row" }, cell);
}

/** @param {Activity | undefined} activity */
function activityCell(activity) {
  return activity && el("td", { class: "dn-across", role: "gridcell" }, activityLine(activity));
}

/**
 * The values of the columns that have no room beside the name, in the order of the columns.
 * @param {readonly Column[]} columns
 * @param {Row} row
 * @param {{now: number, inTree: boolean, openParent: (id: string) => unknown}} options
 */
function valuesBelow(columns, row, { now, inTree, openParent }) {
  const { id, parent_workflow_id: parent } = row;
  const values = columns.filter((column) => column.rank > 0).map((column) => {
    const shown = column.show?.(row, now);
    return shown && el("span", { "data-rank": column.rank }, column.unit && `${column.unit} `, shown);
  });
  return el("td", { class: "dn-across dn-below", role: "gridcell" },
    el("span", { "data-rank": "id" }, idLabel(id, parent)),
    parent !== undefined && !inTree && el("span", { "data-rank": 2 }, parentLink(parent, openParent)), values);
}
