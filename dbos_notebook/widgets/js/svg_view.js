// A picture that can be moved, enlarged and walked through: SVG that came as text, its nodes.
import { el, icon, put, replace } from "./dom.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
// What pictures are made of. Nothing else of a text becomes part of the page, whatever is in it.
const ELEMENTS = new Set(["svg", "g", "path", "rect", "circle", "text", "tspan", "title", "desc",
  "defs", "pattern"]);
const ATTRIBUTES = new Set(["class", "d", "x", "y", "dx", "dy", "width", "height", "rx", "cx", "cy",
  "r", "transform", "viewBox", "fill", "stroke", "stroke-width", "stroke-dasharray",
  "stroke-linecap", "stroke-linejoin", "opacity", "font-size", "font-weight", "font-style",
  "font-family", "text-anchor", "paint-order", "pointer-events", "id", "data-node", "data-part",
  "patternUnits", "patternTransform"]);
const LOCAL = /^url\(#([\w-]+)\)$/;
const SMALLEST = 0.08;
const LARGEST = 4;
const READABLE = 0.8;
const NARROW = 0.62;
const PADDING = 10;
const PANNED = 4;

export function parsed(text, prefix) {
  const root = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  if (root.localName !== "svg") throw new Error("The picture is no SVG.");
  return rebuilt(root, prefix);
}

function rebuilt(node, prefix) {
  const made = document.createElementNS(NAMESPACE, node.localName);
  for (const { name, value } of node.attributes) {
    if (!ATTRIBUTES.has(name)) continue;
    if (name === "id") made.setAttribute(name, prefix + value);
    else if (!value.includes("(") || name === "transform" || name === "patternTransform") {
      made.setAttribute(name, value);
    } else {
      const local = value.match(LOCAL);
      if (local) made.setAttribute(name, `url(#${prefix}${local[1]})`);
    }
  }
  for (const child of node.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) made.append(child.data);
    else if (child.nodeType === Node.ELEMENT_NODE && ELEMENTS.has(child.localName)) {
      made.append(rebuilt(child, prefix));
    }
  }
  return made;
}

export class Canvas {
  // doing: {choose(node), label(node)}
  constructor(doing) {
    this.doing = doing;
    this.prefix = `dn${Math.random().toString(36).slice(2, 8)}-`;
    this.frame = el("div", { class: "dn-canvas" });
    this.legend = el("div", { class: "dn-canvas dn-legend", "aria-hidden": "true" });
    this.parts = new Map();
    this.nodes = new Map();
    this.around = new Map();
    this.scale = null;
    this.listen();
  }

  // --- the picture ---------------------------------------------------------------------------

  // Of rows, where the one side belongs to the other, more is made smaller than of a graph.
  show(picture, label, rows = false) {
    this.rows = rows;
    const held = this.frame.contains(this.frame.getRootNode().activeElement);
    const made = parsed(picture.svg, this.prefix);
    const parts = Object.fromEntries([...made.querySelectorAll("[data-part]")]
      .map((part) => [part.dataset.part, part]));
    parts.ground?.remove();
    parts.head?.remove();
    parts.legend?.remove();
    for (const told of made.querySelectorAll(":scope > title, :scope > desc")) told.remove();
    made.setAttribute("role", "group");
    made.setAttribute("aria-label", label);
    this.nodes = new Map(picture.nodes.map((node) => [node.ref, node]));
    this.around = new Map();
    for (const [from, to] of picture.edges) {
      for (const [one, other] of [[from, to], [to, from]]) {
        if (!this.around.has(one)) this.around.set(one, []);
        this.around.get(one).push(other);
      }
    }
    this.parts = new Map();
    for (const part of made.querySelectorAll("[data-node]")) {
      const node = this.nodes.get(part.dataset.node);
      if (!node) continue;
      this.parts.set(node.ref, part);
      part.setAttribute("role", "button");
      part.setAttribute("tabindex", "-1");
      part.setAttribute("aria-label", this.doing.label(node));
    }
    this.picture = made;
    replace(this.frame, made);
    this.crop(made, null);
    this.showLegend(parts.legend, made);
    this.resize(this.scale);
    this.rove(this.focused);
    this.select(this.selected);
    if (held) this.parts.get(this.focused)?.focus({ preventScroll: true });
  }

  // The frame of what is drawn; a picture that is not laid out yet keeps its own.
  crop(made) {
    const box = made.getBBox();
    const own = made.getAttribute("viewBox").split(" ").map(Number);
    this.box = box.width && box.height
      ? [box.x - PADDING, box.y - PADDING, box.width + 2 * PADDING, box.height + 2 * PADDING]
      : own;
    this.measured = Boolean(box.width && box.height);
    made.setAttribute("viewBox", this.box.join(" "));
    made.style.display = "block";
  }

  showLegend(part, made) {
    this.legend.replaceChildren();
    this.legend.hidden = !part;
    if (!part) return;
    part.removeAttribute("transform");
    const shown = document.createElementNS(NAMESPACE, "svg");
    shown.setAttribute("font-family", made.getAttribute("font-family"));
    shown.append(part);
    // Its patterns are those of the picture beside it.
    this.legend.append(shown);
    const box = part.getBBox();
    if (!box.width) return;
    shown.setAttribute("viewBox", `${box.x - 1} ${box.y - 1} ${box.width + 2} ${box.height + 2}`);
    shown.setAttribute("width", box.width + 2);
  }

  get width() {
    return this.frame.clientWidth || 900;
  }

  // As wide as there is room, where that can be read.
  wanted() {
    const least = this.rows ? NARROW : READABLE;
    return Math.min(1, Math.max(least, this.width / this.box[2]));
  }

  resize(scale) {
    if (!this.picture) return;
    const shown = scale ?? this.wanted();
    this.shown = shown;
    this.picture.setAttribute("width", this.box[2] * shown);
    this.picture.setAttribute("height", this.box[3] * shown);
    this.frame.dataset.movable = String(
      this.box[2] * shown > this.width + 1 || this.box[3] * shown > this.frame.clientHeight + 1,
    );
  }

  zoom(factor, at = null) {
    const before = this.shown;
    const scale = Math.min(LARGEST, Math.max(SMALLEST, before * factor));
    const bounds = this.frame.getBoundingClientRect();
    const x = at ? at.clientX - bounds.left : this.frame.clientWidth / 2;
    const y = at ? at.clientY - bounds.top : this.frame.clientHeight / 2;
    const left = (this.frame.scrollLeft + x) / before;
    const top = (this.frame.scrollTop + y) / before;
    this.scale = scale;
    this.resize(scale);
    // What was under the pointer stays there.
    this.frame.scrollLeft = left * scale - x;
    this.frame.scrollTop = top * scale - y;
  }

  fit() {
    const most = parseFloat(getComputedStyle(this.frame).maxHeight) || this.frame.clientHeight;
    this.scale = Math.min(1, this.width / this.box[2], most / this.box[3]);
    this.resize(this.scale);
  }

  actual() {
    this.scale = null;
    this.resize(null);
  }

  // --- its nodes -----------------------------------------------------------------------------

  has(ref) {
    return this.parts.has(ref);
  }

  select(ref, look = false) {
    this.selected = ref;
    this.frame.querySelector(".dn-halo")?.remove();
    for (const [other, part] of this.parts) {
      part.setAttribute("aria-pressed", String(other === ref));
    }
    const part = this.parts.get(ref);
    if (!part) return;
    const box = part.getBBox();
    const halo = document.createElementNS(NAMESPACE, "rect");
    // A row lies at the next, whose words must not be struck through.
    const out = this.rows ? 1 : 4;
    for (const [name, value] of Object.entries({
      class: "dn-halo", x: box.x - out, y: box.y - out, width: box.width + 2 * out,
      height: box.height + 2 * out, rx: out + 4, "pointer-events": "none",
    })) halo.setAttribute(name, value);
    part.append(halo);
    this.rove(ref);
    if (look) this.lookAt(part);
  }

  lookAt(part) {
    const own = part.getBoundingClientRect();
    const frame = this.frame.getBoundingClientRect();
    const across = own.width > frame.width * 0.8
      || (own.left >= frame.left && own.right <= frame.right);
    const inside = across && own.top >= frame.top && own.bottom <= frame.bottom;
    if (inside) return;
    this.frame.scrollBy({
      left: own.width > frame.width * 0.8 ? 0
        : own.left + own.width / 2 - frame.left - frame.width / 2,
      top: own.top + own.height / 2 - frame.top - frame.height / 2,
    });
  }

  mark(refs) {
    const wanted = new Set(refs);
    this.frame.toggleAttribute("data-searched", wanted.size > 0);
    for (const [ref, part] of this.parts) part.toggleAttribute("data-hit", wanted.has(ref));
  }

  rove(ref) {
    this.focused = this.parts.has(ref) ? ref : this.parts.keys().next().value;
    for (const [other, part] of this.parts) {
      part.setAttribute("tabindex", other === this.focused ? "0" : "-1");
    }
  }

  refOf(target) {
    const part = target.closest?.("[data-node]");
    return part && this.parts.has(part.dataset.node) ? part.dataset.node : null;
  }

  // Along the lines first; where none leads that way, to what is nearest there.
  beside(ref, key) {
    const [dx, dy] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1],
      ArrowUp: [0, -1] }[key];
    const from = middle(this.parts.get(ref));
    const best = (refs) => {
      let found = null;
      let least = Infinity;
      for (const other of refs) {
        const part = this.parts.get(other);
        if (!part || other === ref) continue;
        const at = middle(part);
        const along = (at.x - from.x) * dx + (at.y - from.y) * dy;
        const across = Math.abs((at.x - from.x) * dy) + Math.abs((at.y - from.y) * dx);
        if (along <= 2) continue;
        const far = along + 2.5 * across;
        if (far < least) [found, least] = [other, far];
      }
      return found;
    };
    const linked = (this.around.get(ref) ?? []).filter((other) => {
      const at = middle(this.parts.get(other) ?? this.picture);
      const along = (at.x - from.x) * dx + (at.y - from.y) * dy;
      return along > Math.abs((at.x - from.x) * dy) + Math.abs((at.y - from.y) * dx);
    });
    return best(linked) ?? best(this.parts.keys());
  }

  // --- pointer and keys ----------------------------------------------------------------------

  listen() {
    let begun = null;
    this.frame.addEventListener("pointerdown", (event) => {
      if (event.button || event.pointerType === "touch") return; // touch scrolls by itself
      begun = { x: event.clientX, y: event.clientY, left: this.frame.scrollLeft,
        top: this.frame.scrollTop, moved: false, id: event.pointerId };
    });
    this.frame.addEventListener("pointermove", (event) => {
      if (!begun || event.pointerId !== begun.id) return;
      const [x, y] = [event.clientX - begun.x, event.clientY - begun.y];
      if (!begun.moved && Math.hypot(x, y) < PANNED) return;
      if (!begun.moved) this.frame.setPointerCapture(begun.id);
      begun.moved = true;
      this.frame.scrollLeft = begun.left - x;
      this.frame.scrollTop = begun.top - y;
    });
    const end = () => {
      this.moved = begun?.moved;
      begun = null;
    };
    this.frame.addEventListener("pointerup", end);
    this.frame.addEventListener("pointercancel", end);
    this.frame.addEventListener("click", (event) => {
      // To let go of a picture that was moved is no click.
      if (this.moved) {
        this.moved = false;
        return;
      }
      const ref = this.refOf(event.target);
      if (ref) this.doing.choose(this.nodes.get(ref));
    });
    this.frame.addEventListener("wheel", (event) => {
      // The plain wheel goes on scrolling the page.
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 300), event);
    }, { passive: false });
    this.frame.addEventListener("focusin", (event) => {
      const ref = this.refOf(event.target);
      if (ref) this.rove(ref);
    });
    this.frame.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const ref = this.refOf(event.target);
      const keys = {
        "+": () => this.zoom(1.25),
        "=": () => this.zoom(1.25),
        "-": () => this.zoom(0.8),
        0: () => this.fit(),
        Enter: () => ref && this.doing.choose(this.nodes.get(ref)),
        " ": () => ref && this.doing.choose(this.nodes.get(ref)),
      };
      if (event.key.startsWith("Arrow") && ref) {
        const next = this.beside(ref, event.key);
        if (next) {
          this.rove(next);
          this.parts.get(next).focus({ preventScroll: true });
          this.lookAt(this.parts.get(next));
        }
      } else if (event.key in keys) keys[event.key]();
      else return;
      event.preventDefault();
    });
    this.sizes = new ResizeObserver(() => {
      if (!this.picture) return;
      if (!this.measured && this.frame.clientWidth) {
        this.crop(this.picture);
        this.select(this.selected);
      }
      this.resize(this.scale);
    });
    this.sizes.observe(this.frame);
  }

  buttons() {
    const button = (path, title, act) => el("button", { type: "button", class: "dn-button dn-tool",
      title, "aria-label": title, on: { click: act } }, icon(path));
    return put(el("span", { class: "dn-group", role: "group", "aria-label": "Size" }),
      button("M3.5 8h9", "Smaller (−)", () => this.zoom(0.8)),
      button("M3.5 8h9M8 3.5v9", "Larger (+)", () => this.zoom(1.25)),
      button("M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10", "Show all of it (0)",
        () => this.fit()),
      button("M3.5 4.5v7M12.5 4.5v7M8 6.2v.3M8 9.5v.3", "As large as it reads well",
        () => this.actual()));
  }

  close() {
    this.sizes.disconnect();
  }
}

function middle(part) {
  const box = part.getBoundingClientRect();
  return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
}
