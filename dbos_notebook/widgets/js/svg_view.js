// Shows an SVG picture: zoom and pan, its nodes as buttons, and moving between them by keyboard.
import { append, closest, el, focus, focusedElement, hasModifier, icon, iconButton, replace, svg } from "./dom.js";
/** @import {GraphNode, Picture} from "./types.js" */

/** @typedef {{clientX: number, clientY: number}} Point */
/** @typedef {{x: number, y: number}} Position */
/**
 * @typedef {object} Drag
 * @property {number} id of the pointer
 * @property {number} x
 * @property {number} y
 * @property {number} left
 * @property {number} top
 * @property {boolean} moved
 */

const NAMESPACE = "http://www.w3.org/2000/svg";
// What pictures consist of. Nothing else in the string becomes part of the page.
const ELEMENTS = new Set(["svg", "g", "path", "rect", "circle", "text", "tspan", "title", "desc",
  "defs", "pattern"]);
const ATTRIBUTES = new Set(["class", "d", "x", "y", "dx", "dy", "width", "height", "rx", "cx", "cy",
  "r", "transform", "viewBox", "fill", "stroke", "stroke-width", "stroke-dasharray",
  "stroke-linecap", "stroke-linejoin", "opacity", "font-size", "font-weight", "font-style",
  "font-family", "text-anchor", "paint-order", "pointer-events", "id", "data-node", "data-part",
  "patternUnits", "patternTransform"]);
const LOCAL_URL = /^url\(#([\w-]+)\)$/;
const MIN_SCALE = 0.08;
const MAX_SCALE = 4;
/** The smallest scale at which text, which is 11 pixels high, is readable. */
const READABLE = 10 / 11;
const PADDING = 10;
const DRAG_THRESHOLD = 4;
const ZOOM_STEP = 1.25;
/** @type {Record<string, readonly [number, number]>} */
const DIRECTIONS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

/**
 * Parse SVG and rebuild it from the elements and attributes that pictures consist of.
 * @param {string} text
 * @param {string} prefix of its IDs, which must be unique in the page
 * @returns {SVGSVGElement}
 */
export function parseSvg(text, prefix) {
  const root = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  const made = rebuild(root, prefix);
  if (!(made instanceof SVGSVGElement)) throw new Error("The picture is not an SVG document.");
  return made;
}

/**
 * @param {Element} node
 * @param {string} prefix
 * @returns {SVGElement}
 */
function rebuild(node, prefix) {
  const made = document.createElementNS(NAMESPACE, node.localName);
  for (const { name, value } of node.attributes) {
    if (!ATTRIBUTES.has(name)) continue;
    if (name === "id") made.setAttribute(name, prefix + value);
    else if (!value.includes("(") || name === "transform" || name === "patternTransform") {
      made.setAttribute(name, value);
    } else {
      const local = value.match(LOCAL_URL);
      if (local) made.setAttribute(name, `url(#${prefix}${local[1]})`);
    }
  }
  for (const child of node.childNodes) {
    if (child instanceof Text) made.append(child.data);
    else if (child instanceof Element && ELEMENTS.has(child.localName)) {
      made.append(rebuild(child, prefix));
    }
  }
  return made;
}

export class SvgView {
  /**
   * @param {(node: GraphNode) => unknown} onChoose a node was clicked, or Enter was pressed on it
   * @param {(node: GraphNode) => string} label what a screen reader says of a node
   */
  constructor(onChoose, label) {
    this.onChoose = onChoose;
    this.label = label;
    this.prefix = `dn${Math.random().toString(36).slice(2, 8)}-`;
    this.frame = el("div", { class: "dn-svg-view" });
    this.legend = el("div", { class: "dn-svg-view dn-legend", "aria-hidden": "true" });
    /** @type {SVGSVGElement | null} */
    this.picture = null;
    /** @type {Map<string, SVGGraphicsElement>} the element of each node, by ref */
    this.elements = new Map();
    /** @type {Map<string, GraphNode>} by ref */
    this.nodes = new Map();
    /** @type {Map<string, string[]>} by ref */
    this.neighbors = new Map();
    this.isTimeline = false;
    /** What the picture shows: a later picture of it keeps its place, one of another does not. */
    this.subject = "";
    /** Whether nodes are rows that touch each other. */
    this.hasRows = false;
    /** @type {SVGGraphicsElement | null} what took the place of the node that was clicked */
    this.kept = null;
    /** @type {number | null} null: the default for the width */
    this.scale = null;
    this.shownScale = 1;
    this.box = [0, 0, 1, 1];
    this.isMeasured = false;
    /** @type {string | null} */
    this.selectedRef = null;
    /** @type {string | null} */
    this.focusedRef = null;
    /** @type {Drag | null} */
    this.drag = null;
    this.wasDragged = false;
    this.listen();
    this.resizeObserver = new ResizeObserver(() => this.onResize());
    this.resizeObserver.observe(this.frame);
  }

  // --- the picture -----------------------------------------------------------------------------

  /**
   * @param {Picture} picture
   * @param {string} label
   * @param {string} subject
   * @param {boolean} [isTimeline] rows stay readable at a smaller scale than a graph
   */
  show(picture, label, subject, isTimeline = false) {
    const { frame } = this;
    if (subject !== this.subject) this.reset(subject);
    const place = this.placeOfChosen();
    const scrolled = { left: frame.scrollLeft, top: frame.scrollTop };
    const known = new Set(this.elements.keys());
    this.isTimeline = isTimeline;
    this.hasRows = isTimeline || Boolean(picture.overview);
    const hadFocus = this.frame.contains(focusedElement(this.frame));
    const made = parseSvg(picture.svg, this.prefix);
    const legend = made.querySelector("[data-part=legend]");
    // The view shows these itself, or not at all.
    for (const part of made.querySelectorAll(
      ":scope > title, :scope > desc, [data-part=ground], [data-part=head], [data-part=legend]",
    )) part.remove();
    made.setAttribute("role", "group");
    made.setAttribute("aria-label", label);
    this.nodes = new Map(picture.nodes.map((node) => [node.ref, node]));
    this.neighbors = neighborsOf(picture.edges);
    this.elements = this.makeButtons(made);
    this.picture = made;
    replace(this.frame, made);
    this.crop(made);
    this.showLegend(legend, made.getAttribute("font-family"));
    this.resize();
    this.setTabStop(this.focusedRef);
    this.select(this.selectedRef);
    frame.scrollTo({ ...scrolled, behavior: "instant" });
    if (place) this.keepPlace(place, known);
    if (hadFocus) this.focusNode(this.focusedRef);
  }

  /**
   * Forget the place of a picture of something else.
   * @param {string} subject
   */
  reset(subject) {
    this.subject = subject;
    this.elements = new Map();
    this.focusedRef = null;
    this.kept = null;
    this.scale = null;
    this.frame.scrollTo({ left: 0, top: 0, behavior: "instant" });
  }

  /**
   * The node that is selected, or else has the focus, and where it is in the frame, if it is visible.
   * @returns {(Position & {ref: string}) | null}
   */
  placeOfChosen() {
    const focused = focusedElement(this.frame);
    const ref = this.selectedRef ?? (this.frame.contains(focused) ? this.focusedRef : null);
    const element = this.elements.get(ref ?? "");
    if (ref === null || !element) return null;
    const frame = this.frame.getBoundingClientRect();
    const { x, y } = center(element);
    const isVisible = x > frame.left && x < frame.right && y > frame.top && y < frame.bottom;
    return isVisible ? { ref, x: x - frame.left, y: y - frame.top } : null;
  }

  /**
   * Scroll until a node is where it was. A group that was expanded or collapsed is replaced by
   * others: the first of them takes its place.
   * @param {Position & {ref: string}} place
   * @param {ReadonlySet<string>} known the nodes of the previous picture
   */
  keepPlace({ ref, x, y }, known) {
    let element = this.elements.get(ref);
    const isReplaced = !element;
    for (const [other, candidate] of element ? [] : this.elements) {
      if (!known.has(other)) {
        element = candidate;
        break;
      }
    }
    if (!element) return;
    this.kept = element;
    const frame = this.frame.getBoundingClientRect();
    const now = center(element);
    this.frame.scrollBy({ left: now.x - frame.left - x, top: now.y - frame.top - y,
      behavior: "instant" });
    // Where the picture cannot be scrolled so far to the right or down, a margin moves it.
    const { picture } = this;
    const scrolled = center(element);
    const own = picture?.getBoundingClientRect();
    if (!picture || !own) return;
    // What was opened appears where the click was. Otherwise the end of the picture comes first.
    const [widest, highest] = isReplaced ? [Infinity, Infinity]
      : [frame.right - own.right, frame.bottom - own.bottom];
    const right = Math.min(widest, x - (scrolled.x - frame.left));
    const down = Math.min(highest, y - (scrolled.y - frame.top));
    // A picture of rows is drawn for the width of the frame.
    if (right > 1 && !this.hasRows) {
      picture.style.marginLeft = `${own.left - frame.left + this.frame.scrollLeft + right}px`;
    }
    if (down > 1) {
      picture.style.marginTop = `${own.top - frame.top + this.frame.scrollTop + down}px`;
      picture.style.alignSelf = "start";
    }
  }

  /** @param {SVGSVGElement} picture */
  makeButtons(picture) {
    /** @type {Map<string, SVGGraphicsElement>} */
    const made = new Map();
    for (const element of picture.querySelectorAll("[data-node]")) {
      const node = this.nodes.get(element.getAttribute("data-node") ?? "");
      if (!node || !(element instanceof SVGGraphicsElement)) continue;
      made.set(node.ref, element);
      element.setAttribute("role", "button");
      element.setAttribute("tabindex", "-1");
      element.setAttribute("aria-label", this.label(node));
      if (node.since !== undefined) keepCurrent(element, node.since);
    }
    return made;
  }

  /**
   * Crop to what is drawn. A picture that has no layout yet keeps its own frame.
   * @param {SVGSVGElement} picture
   */
  crop(picture) {
    const { x, y, width, height } = picture.getBBox();
    this.isMeasured = Boolean(width && height);
    this.box = this.isMeasured
      ? [x - PADDING, y - PADDING, width + 2 * PADDING, height + 2 * PADDING]
      : (picture.getAttribute("viewBox") ?? "0 0 1 1").split(" ").map(Number);
    picture.setAttribute("viewBox", this.box.join(" "));
    picture.style.display = "block";
  }

  /**
   * Show the legend below the picture, whose patterns it uses.
   * @param {Element | null} legend
   * @param {string | null} font
   */
  showLegend(legend, font) {
    this.legend.replaceChildren();
    this.legend.hidden = !legend;
    if (!(legend instanceof SVGGraphicsElement)) return;
    legend.removeAttribute("transform");
    const shown = svg("svg", { "font-family": font }, legend);
    this.legend.append(shown);
    const box = legend.getBBox();
    if (!box.width) return;
    shown.setAttribute("viewBox", `${box.x - 1} ${box.y - 1} ${box.width + 2} ${box.height + 2}`);
    shown.setAttribute("width", String(box.width + 2));
  }

  get pictureWidth() {
    return this.box[2] ?? 1;
  }

  get pictureHeight() {
    return this.box[3] ?? 1;
  }

  get width() {
    return this.frame.clientWidth || 900;
  }

  get maxHeight() {
    return parseFloat(getComputedStyle(this.frame).maxHeight) || this.frame.clientHeight;
  }

  /** The whole picture, if that is readable; of a timeline, its whole width. */
  defaultScale() {
    const height = this.isTimeline ? 1 : this.maxHeight / this.pictureHeight;
    return Math.min(1, Math.max(READABLE, Math.min(this.width / this.pictureWidth, height)));
  }

  resize() {
    if (!this.picture) return;
    this.shownScale = this.scale ?? this.defaultScale();
    const width = this.pictureWidth * this.shownScale;
    const height = this.pictureHeight * this.shownScale;
    this.picture.setAttribute("width", String(width));
    this.picture.setAttribute("height", String(height));
    this.frame.dataset.movable = String(
      width > this.width + 1 || height > this.frame.clientHeight + 1);
  }

  onResize() {
    if (!this.picture) return;
    if (!this.isMeasured && this.frame.clientWidth) {
      this.crop(this.picture);
      this.select(this.selectedRef);
    }
    this.resize();
    // The panel beside the picture makes it narrower: what was clicked stays visible.
    const chosen = this.elements.get(this.selectedRef ?? "") ?? this.kept;
    if (chosen?.isConnected) this.scrollTo(chosen);
  }

  /**
   * @param {number} factor
   * @param {Point | null} [fixed] the point that stays in place; null: the center
   */
  zoom(factor, fixed = null) {
    const before = this.shownScale;
    const scale = Math.min(MAX_SCALE, Math.max(MIN_SCALE, before * factor));
    const bounds = this.frame.getBoundingClientRect();
    const x = fixed ? fixed.clientX - bounds.left : this.frame.clientWidth / 2;
    const y = fixed ? fixed.clientY - bounds.top : this.frame.clientHeight / 2;
    const left = (this.frame.scrollLeft + x) / before;
    const top = (this.frame.scrollTop + y) / before;
    this.scale = scale;
    this.resize();
    this.frame.scrollLeft = left * scale - x;
    this.frame.scrollTop = top * scale - y;
  }

  fit() {
    this.scale = Math.min(1, this.width / this.pictureWidth, this.maxHeight / this.pictureHeight);
    this.resize();
  }

  resetZoom() {
    this.scale = null;
    this.resize();
  }

  zoomButtons() {
    const tool = (/** @type {string} */ path, /** @type {string} */ title,
      /** @type {() => void} */ onClick) =>
      iconButton(icon(path), title, onClick, { class: "dn-button dn-tool" });
    return append(el("span", { class: "dn-group", role: "group", "aria-label": "Zoom" }),
      tool("M3.5 8h9", "Zoom out (−)", () => this.zoom(1 / ZOOM_STEP)),
      tool("M3.5 8h9M8 3.5v9", "Zoom in (+)", () => this.zoom(ZOOM_STEP)),
      tool("M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10", "Fit to view (0)",
        () => this.fit()),
      tool("M3.5 4.5v7M12.5 4.5v7M8 6.2v.3M8 9.5v.3", "Readable size", () => this.resetZoom()));
  }

  // --- nodes -----------------------------------------------------------------------------------

  /** @param {string} ref */
  has(ref) {
    return this.elements.has(ref);
  }

  /** @param {string | null} ref */
  focusNode(ref) {
    focus(this.elements.get(ref ?? ""));
  }

  /**
   * @param {string | null} ref
   * @param {boolean} [scroll] bring it into view, at a scale at which it is readable
   */
  select(ref, scroll = false) {
    this.selectedRef = ref;
    this.frame.querySelector(".dn-halo")?.remove();
    for (const [other, element] of this.elements) {
      element.setAttribute("aria-pressed", String(other === ref));
    }
    const element = this.elements.get(ref ?? "");
    if (!element) return;
    const box = element.getBBox();
    // A wider halo would strike through the text of the next row.
    const margin = this.isTimeline ? 1 : this.hasRows ? -1 : 4;
    element.append(svg("rect", { class: "dn-halo", x: box.x - margin, y: box.y - margin,
      width: box.width + 2 * margin, height: box.height + 2 * margin, rx: margin + 4,
      "pointer-events": "none" }));
    this.setTabStop(ref);
    if (!scroll) return;
    if (this.shownScale < READABLE) {
      this.scale = READABLE;
      this.resize();
    }
    this.scrollTo(element);
  }

  /** Bring what runs now into view, or else the end of the picture. */
  revealEnd() {
    const active = [...this.elements.keys()].filter((ref) =>
      this.nodes.get(ref)?.status === "PENDING");
    const ref = active.at(-1);
    if (ref !== undefined) this.reveal(ref);
    else this.frame.scrollTo({ left: this.frame.scrollWidth, top: this.frame.scrollHeight });
  }

  /**
   * Bring a node into view if it is not.
   * @param {string} ref
   */
  reveal(ref) {
    const element = this.elements.get(ref);
    if (element && this.frame.dataset.movable === "true") this.scrollTo(element);
  }

  /** @param {SVGGraphicsElement} element */
  scrollTo(element) {
    const own = element.getBoundingClientRect();
    const frame = this.frame.getBoundingClientRect();
    const isWide = own.width > frame.width * 0.8;
    const isInside = (isWide || (own.left >= frame.left && own.right <= frame.right))
      && own.top >= frame.top && own.bottom <= frame.bottom;
    if (isInside) return;
    this.frame.scrollBy({
      left: isWide ? 0 : own.left + own.width / 2 - frame.left - frame.width / 2,
      top: own.top + own.height / 2 - frame.top - frame.height / 2,
    });
  }

  /**
   * Highlight search results by fading the other nodes; none: fade nothing.
   * @param {readonly string[]} refs
   */
  highlight(refs) {
    const wanted = new Set(refs);
    this.frame.toggleAttribute("data-searched", wanted.size > 0);
    for (const [ref, element] of this.elements) {
      element.toggleAttribute("data-hit", wanted.has(ref));
    }
  }

  /**
   * Make a node, or the first one, the one that Tab reaches.
   * @param {string | null} ref
   */
  setTabStop(ref) {
    const first = this.elements.keys().next().value ?? null;
    this.focusedRef = ref !== null && this.elements.has(ref) ? ref : first;
    for (const [other, element] of this.elements) {
      element.setAttribute("tabindex", other === this.focusedRef ? "0" : "-1");
    }
  }

  /**
   * The node that an event is about.
   * @param {Event} event
   */
  nodeOf(event) {
    const ref = closest(event, "[data-node]")?.getAttribute("data-node");
    return ref && this.elements.has(ref) ? this.nodes.get(ref) ?? null : null;
  }

  /**
   * The node in the direction of an arrow key: a neighbor in the graph, else the nearest node.
   * @param {string} ref
   * @param {readonly [number, number]} direction
   */
  nodeTowards(ref, [dx, dy]) {
    const start = this.elements.get(ref);
    if (!start) return null;
    const from = center(start);
    /**
     * How far another node is in the direction, and how far off it.
     * @param {string} other
     */
    const offset = (other) => {
      const element = this.elements.get(other);
      const to = element && other !== ref ? center(element) : from;
      const [x, y] = [to.x - from.x, to.y - from.y];
      return { along: x * dx + y * dy, across: Math.abs(x * dy) + Math.abs(y * dx) };
    };
    const nearest = (/** @type {Iterable<string>} */ refs) => {
      let found = null;
      let least = Infinity;
      for (const other of refs) {
        const { along, across } = offset(other);
        const distance = along + 2.5 * across;
        if (along > 2 && distance < least) [found, least] = [other, distance];
      }
      return found;
    };
    const neighbors = (this.neighbors.get(ref) ?? []).filter((other) => {
      const { along, across } = offset(other);
      return along > across;
    });
    return nearest(neighbors) ?? nearest(this.elements.keys());
  }

  // --- pointer and keyboard ----------------------------------------------------------------------

  listen() {
    const { frame } = this;
    frame.addEventListener("pointerdown", (event) => this.startDrag(event));
    frame.addEventListener("pointermove", (event) => this.moveDrag(event));
    for (const event of /** @type {const} */ (["pointerup", "pointercancel"])) {
      frame.addEventListener(event, () => {
        this.wasDragged = this.drag?.moved ?? false;
        this.drag = null;
      });
    }
    frame.addEventListener("click", (event) => {
      const node = this.nodeOf(event);
      // The end of a drag is not a click.
      if (node && !this.wasDragged) this.onChoose(node);
      this.wasDragged = false;
    });
    frame.addEventListener("wheel", (event) => {
      // The wheel alone scrolls the page.
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 300), event);
    }, { passive: false });
    frame.addEventListener("focusin", (event) => {
      const node = this.nodeOf(event);
      if (node) this.setTabStop(node.ref);
    });
    frame.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** @param {PointerEvent} event */
  startDrag(event) {
    if (event.button || event.pointerType === "touch") return; // the browser scrolls by touch
    this.drag = { id: event.pointerId, x: event.clientX, y: event.clientY,
      left: this.frame.scrollLeft, top: this.frame.scrollTop, moved: false };
  }

  /** @param {PointerEvent} event */
  moveDrag(event) {
    const { drag } = this;
    if (!drag || event.pointerId !== drag.id) return;
    const [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moved) {
      if (Math.hypot(x, y) < DRAG_THRESHOLD) return;
      this.frame.setPointerCapture(drag.id);
      drag.moved = true;
    }
    this.frame.scrollLeft = drag.left - x;
    this.frame.scrollTop = drag.top - y;
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (hasModifier(event)) return;
    const node = this.nodeOf(event);
    const direction = DIRECTIONS[event.key];
    const choose = () => node && this.onChoose(node);
    /** @type {Record<string, () => unknown>} */
    const keys = {
      "+": () => this.zoom(ZOOM_STEP),
      "=": () => this.zoom(ZOOM_STEP),
      "-": () => this.zoom(1 / ZOOM_STEP),
      0: () => this.fit(),
      Enter: choose,
      " ": choose,
    };
    if (direction && node) this.moveFocus(this.nodeTowards(node.ref, direction));
    else if (keys[event.key]) keys[event.key]?.();
    else return;
    event.preventDefault();
  }

  /** @param {string | null} ref */
  moveFocus(ref) {
    const element = this.elements.get(ref ?? "");
    if (!element) return;
    this.setTabStop(ref);
    this.focusNode(ref);
    this.kept = element;
    this.scrollTo(element);
  }

  close() {
    this.resizeObserver.disconnect();
  }
}

/**
 * Let the clock of the view update how long a node has been running, as in the header.
 * @param {SVGElement} element
 * @param {number} since
 */
function keepCurrent(element, since) {
  for (const line of element.querySelectorAll("text")) {
    const found = line.textContent?.match(/^(running for )\S/);
    if (!found) continue;
    const time = svg("tspan", { "data-since": since }, line.textContent?.slice(found[1]?.length));
    replace(line, found[1], time);
  }
}

/** @param {readonly [string, string][]} edges */
function neighborsOf(edges) {
  /** @type {Map<string, string[]>} */
  const found = new Map();
  for (const [from, to] of edges) {
    for (const [one, other] of /** @type {const} */ ([[from, to], [to, from]])) {
      const list = found.get(one);
      if (list) list.push(other);
      else found.set(one, [other]);
    }
  }
  return found;
}

/**
 * @param {SVGGraphicsElement} element
 * @returns {Position}
 */
function center(element) {
  const box = element.getBoundingClientRect();
  return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
}
