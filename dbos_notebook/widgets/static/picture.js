// A picture that came as SVG, as elements of the page: only those that draw, with only the
// attributes that draw. What else a text holds is left out, whoever wrote it.

const ELEMENTS = new Set(["svg", "g", "path", "rect", "circle", "ellipse", "line", "polyline",
  "polygon", "text", "tspan", "title", "desc", "defs", "pattern", "clipPath"]);
const ATTRIBUTES = new Set(["aria-hidden", "aria-labelledby", "clip-path", "cx", "cy", "d",
  "data-node", "dominant-baseline", "dx", "dy", "fill", "fill-opacity", "font-family",
  "font-size", "font-style", "font-weight", "height", "id", "letter-spacing", "opacity",
  "paint-order", "patternTransform", "patternUnits", "pointer-events", "points", "r", "role", "rx",
  "ry", "stroke", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "stroke-opacity",
  "stroke-width", "text-anchor", "transform", "viewBox", "width", "x", "x1", "x2", "y", "y1", "y2"]);
const NAMESPACE = "http://www.w3.org/2000/svg";

export function picture(text) {
  const parsed = new DOMParser().parseFromString(text, "image/svg+xml");
  return clean(parsed.documentElement);
}

function clean(node) {
  if (node.nodeType === Node.TEXT_NODE) return document.createTextNode(node.data);
  if (node.nodeType !== Node.ELEMENT_NODE) return null;
  if (node.namespaceURI !== NAMESPACE || !ELEMENTS.has(node.localName)) return null;
  const copy = document.createElementNS(NAMESPACE, node.localName);
  for (const { name, value } of node.attributes) {
    // A reference to a part of the same picture, and to nothing else.
    const refers = /url\(/i.test(value);
    if (ATTRIBUTES.has(name) && (!refers || /^url\(#[\w-]+\)$/.test(value))) {
      copy.setAttribute(name, value);
    }
  }
  for (const child of node.childNodes) {
    const kept = clean(child);
    if (kept) copy.append(kept);
  }
  return copy;
}

// A picture in a frame: dragged, zoomed with Ctrl and the wheel, walked with the keys.
export class Frame {
  constructor(node, onPick) {
    this.node = node;
    this.onPick = onPick;
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.drag = null;
    node.addEventListener("pointerdown", (event) => this.down(event));
    node.addEventListener("pointermove", (event) => this.move(event));
    node.addEventListener("pointerup", (event) => this.up(event));
    node.addEventListener("pointercancel", () => (this.drag = null));
    node.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    node.addEventListener("keydown", (event) => this.key(event));
  }

  show(drawing, keep) {
    this.drawing = drawing;
    this.width = Number(drawing.getAttribute("width")) || 600;
    this.height = Number(drawing.getAttribute("height")) || 400;
    this.node.replaceChildren(drawing);
    if (keep) this.place();
    else this.fit();
  }

  // The whole picture, never larger than drawn, and not so small that nothing can be read.
  fit() {
    const wide = this.node.clientWidth || 800;
    this.scale = Math.min(1, Math.max(0.35, wide / this.width));
    this.x = Math.max(0, (wide - this.width * this.scale) / 2);
    this.y = 0;
    this.node.style.height = `${Math.min(560, Math.max(160, this.height * this.scale))}px`;
    this.place();
  }

  place() {
    this.drawing.style.transformOrigin = "0 0";
    this.drawing.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
  }

  zoom(by, at = { x: this.node.clientWidth / 2, y: this.node.clientHeight / 2 }) {
    const scale = Math.min(4, Math.max(0.05, this.scale * by));
    this.x = at.x - ((at.x - this.x) * scale) / this.scale;
    this.y = at.y - ((at.y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.place();
  }

  down(event) {
    if (event.button !== 0) return;
    this.drag = { x: event.clientX - this.x, y: event.clientY - this.y,
      at: [event.clientX, event.clientY], target: event.target };
    this.node.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (!this.drag) return;
    const [x, y] = this.drag.at;
    if (!this.drag.moved && Math.hypot(event.clientX - x, event.clientY - y) < 4) return;
    this.drag.moved = true;
    this.x = event.clientX - this.drag.x;
    this.y = event.clientY - this.drag.y;
    this.place();
  }

  up() {
    const { moved, target } = this.drag ?? {};
    this.drag = null;
    if (!moved && target) this.onPick(target.closest("[data-node]"));
  }

  wheel(event) {
    // Without a key the wheel scrolls the notebook, as everywhere in it.
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = this.node.getBoundingClientRect();
    this.zoom(Math.exp(-event.deltaY / 300), { x: event.clientX - box.left, y: event.clientY - box.top });
  }

  key(event) {
    const keys = {
      "+": () => this.zoom(1.25), "=": () => this.zoom(1.25), "-": () => this.zoom(0.8),
      0: () => this.fit(),
      ArrowLeft: () => (this.x += 60), ArrowRight: () => (this.x -= 60),
      ArrowUp: () => (this.y += 60), ArrowDown: () => (this.y -= 60),
    };
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
    this.place();
  }

  // Brings an element into sight.
  reveal(element) {
    const box = this.node.getBoundingClientRect();
    const at = element.getBoundingClientRect();
    if (at.left < box.left || at.right > box.right) {
      this.x += box.left + box.width / 2 - (at.left + at.width / 2);
    }
    if (at.top < box.top || at.bottom > box.bottom) {
      this.y += box.top + box.height / 2 - (at.top + at.height / 2);
    }
    this.place();
  }
}
