// The rows of the list: what stands in them, and walking through them by keyboard.
import { COLUMNS, identity, trouble } from "./columns.js";
import { el, icon, replace } from "./dom.js";
import { count } from "./format.js";

const CHEVRON = "M6 3.5L10.5 8L6 12.5";

export class Grid {
  // doing: {now(), mode(), sorted() → [key, descending], sort(column), toggle(id), unfold(row),
  // pick(id), pickAll(checked), selected(), opened(row, columns) → an element or null,
  // isOpen(id), turn(by)}
  constructor(doing) {
    this.doing = doing;
    this.rows = [];
    this.kids = new Map(); // of rows that are opened in the tree
    this.focused = null;
    this.head = el("thead");
    this.body = el("tbody", { on: { keydown: (event) => this.key(event) } });
    this.node = el("table", { class: "dn-list", "aria-label": "Workflows",
      "aria-multiselectable": "true" }, this.head, this.body);
  }

  get inTree() {
    return this.doing.mode() === "tree";
  }

  // A row that is shown, at whatever depth.
  row(id) {
    return this.all().find((row) => row.id === id) ?? null;
  }

  all() {
    return [this.rows, ...[...this.kids.values()].map((below) => below.rows)].flat();
  }

  // A column in which no row has anything takes no room.
  columns() {
    const rows = this.all();
    return COLUMNS[this.doing.mode()].filter(
      (column) => !column.optional || rows.some((row) => row[column.key] !== undefined),
    );
  }

  // --- what stands there ---------------------------------------------------------------------

  // The rows, and those below them; nothing: these words.
  show(rows, nothing) {
    this.rows = rows;
    this.showHead();
    const at = this.node.getRootNode().activeElement;
    const held = this.body.contains(at) && !at.closest(".dn-opened") ? this.focused : null;
    const shown = this.lines(rows, 1);
    if (!shown.length) shown.push(this.note(nothing, 1));
    replace(this.body, shown);
    this.rove(held ?? this.focused, held !== null);
  }

  lines(rows, level) {
    return rows.flatMap((row) => {
      const below = this.kids.get(row.id);
      return [
        this.line(row, level),
        this.doing.opened(row, this.columns().length + 1),
        ...(below ? this.lines(below.rows, level + 1) : []),
        below?.left_out ? this.note(`… and ${count(below.left_out)} more`, level + 1) : null,
      ].filter(Boolean);
    });
  }

  showHead() {
    const [sorted, descending] = this.doing.sorted();
    this.node.setAttribute("role", this.inTree ? "treegrid" : "grid");
    this.node.dataset.sorted = sorted;
    this.every = el("input", { type: "checkbox", "aria-label": "Select all on this page",
      on: { change: () => this.doing.pickAll(this.every.checked) } });
    const headings = this.columns().map((column) => {
      const on = column.key === sorted;
      const down = column.reversed ? !descending : descending;
      return el("th", {
        scope: "col",
        class: column.number ? "n" : null,
        "data-rank": column.rank,
        "aria-sort": on ? (down ? "descending" : "ascending") : null,
      }, el("button", { type: "button", title: `Sort by ${column.label}`,
        on: { click: () => this.doing.sort(column) } }, column.label,
        el("span", { "aria-hidden": "true" }, on ? (down ? " ↓" : " ↑") : "")));
    });
    replace(this.head, el("tr", {}, el("th", { class: "dn-check" }, this.every), headings));
  }

  note(text, level) {
    const cell = el("td", { colspan: this.columns().length + 1, class: "dn-none" }, text);
    cell.style.paddingLeft = `${2 + level}em`;
    return el("tr", {}, cell);
  }

  line(row, level) {
    const now = this.doing.now();
    const parent = this.inTree && row.children;
    const open = parent ? this.kids.has(row.id) : this.doing.isOpen(row.id);
    const cells = this.columns().map((column) => {
      const attributes = { class: column.number ? "n" : null, "data-rank": column.rank };
      if (!column.main) return el("td", attributes, column.show(row, now));
      const toggle = el("button", { type: "button", tabindex: "-1", class: "dn-toggle",
        "aria-label": parent ? "Show children" : "Show details",
        "data-open": open,
        on: { click: (event) => {
          event.stopPropagation();
          this.focused = row.id;
          this.open(row);
        } } }, parent || !this.inTree ? icon(CHEVRON) : null);
      const cell = el("td", { class: "dn-main", "data-rank": 0 },
        el("div", { class: "dn-line" }, toggle, identity(row, this.inTree)), trouble(row));
      cell.style.paddingLeft = `${10 + (level - 1) * 20}px`;
      return cell;
    });
    const tick = el("input", { type: "checkbox", tabindex: "-1", "aria-label": `Select ${row.id}`,
      on: { change: () => this.doing.pick(row.id) } });
    return el("tr", {
      class: "dn-row",
      tabindex: "-1",
      "data-id": row.id,
      "data-status": row.status,
      "aria-expanded": String(open),
      "aria-level": this.inTree ? level : null,
      on: {
        click: (event) => {
          if (event.target.closest("button, input")) return;
          this.focused = row.id;
          // To mark a text with the pointer is no click.
          if (!String(document.getSelection?.() ?? "")) this.doing.toggle(row.id);
        },
        focus: () => this.rove(row.id, false),
      },
    }, el("td", { class: "dn-check" }, tick), cells);
  }

  // Children where there are some, else what it did.
  open(row) {
    if (this.inTree && row.children) this.doing.unfold(row);
    else this.doing.toggle(row.id);
  }

  showPicked() {
    const ids = new Set(this.doing.selected());
    for (const line of this.lineElements()) {
      const on = ids.has(line.dataset.id);
      line.setAttribute("aria-selected", String(on));
      line.querySelector(".dn-check input").checked = on;
    }
    const here = this.rows.filter((row) => ids.has(row.id)).length;
    this.every.checked = here > 0 && here === this.rows.length;
    this.every.indeterminate = here > 0 && here < this.rows.length;
  }

  // --- by keyboard ---------------------------------------------------------------------------

  lineElements() {
    return [...this.body.querySelectorAll("tr.dn-row")];
  }

  rove(id, focus) {
    const lines = this.lineElements();
    const target = lines.find((line) => line.dataset.id === id) ?? lines[0];
    for (const line of lines) line.tabIndex = line === target ? 0 : -1;
    this.focused = target?.dataset.id ?? null;
    if (focus) target?.focus();
  }

  key(event) {
    const at = event.target;
    if (!at.classList?.contains("dn-row")) return;
    const lines = this.lineElements();
    const place = lines.indexOf(at);
    const { id } = at.dataset;
    const row = this.row(id);
    const opened = this.inTree && row?.children ? this.kids.has(id) : this.doing.isOpen(id);
    const go = (to) => this.rove(lines[Math.max(0, Math.min(lines.length - 1, to))].dataset.id, true);
    const turn = (by) => this.doing.turn(by)?.then(() => this.rove(null, true));
    const keys = {
      ArrowDown: () => go(place + 1),
      ArrowUp: () => go(place - 1),
      Home: () => go(0),
      End: () => go(lines.length - 1),
      Enter: () => this.doing.toggle(id),
      " ": () => this.doing.pick(id),
      ArrowRight: () => !opened && this.open(row),
      ArrowLeft: () => opened && this.open(row),
      PageDown: () => turn(1),
      PageUp: () => turn(-1),
    };
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.focused = id;
    keys[event.key]();
  }
}
