// Builds elements. This is the only place where a string reaches the page, and it does so as a text
// node or as the value of a named attribute: neither this module nor its callers parse markup.
/** @import {Attributes, Child} from "./types.js" */

/** What text.py escapes for display; line feeds and tabs stay. */
const UNSAFE = new RegExp("[\\0-\\x08\\x0b-\\x1f\\x7f-\\x9f\\xad\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e"
  + "\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb\\u{d800}-\\u{dfff}\\u{e0000}-\\u{e007f}]", "gu");
const SHOWN_ATTRIBUTES = ["title", "aria-label", "placeholder"];
const FOCUSABLE = ["BUTTON", "INPUT", "SELECT", "SUMMARY", "TEXTAREA"];
const SUPPRESS_SHORTCUTS = "data-lm-suppress-shortcuts";
const SVG = "http://www.w3.org/2000/svg";
const TRANSPARENT = /(^rgba\(.*,|\/) 0\)$/;
const COPY_FEEDBACK_MS = 1500;

/**
 * A string with control characters, bidirectional overrides and invisible characters escaped, as
 * `escape_unsafe_lines` in text.py returns it.
 * @param {string} text
 */
export function visible(text) {
  return text.replace(UNSAFE, (character) => {
    const code = (character.codePointAt(0) ?? 0).toString(16);
    if (code.length <= 2) return `\\x${code.padStart(2, "0")}`;
    return code.length <= 4 ? `\\u${code.padStart(4, "0")}` : `\\U${code.padStart(8, "0")}`;
  });
}

/**
 * Create an HTML element: el("td", {class: "n", on: {click: f}}, "text", child, null, [more]).
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes] one that is null, undefined or false is skipped
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/**
 * Create an SVG element.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * @template {Element} T
 * @param {T} node
 * @param {Attributes} attributes
 * @param {readonly Child[]} children
 * @returns {T}
 */
function fill(node, attributes, children) {
  const { on = {}, ...rest } = attributes;
  for (const [event, handler] of Object.entries(on)) {
    node.addEventListener(event, /** @type {EventListener} */ (handler));
  }
  for (const [name, value] of Object.entries(rest)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "value" || name === "checked" || name === "disabled") {
      Object.assign(node, { [name]: value });
    } else {
      const text = value === true ? "" : String(value);
      node.setAttribute(name, SHOWN_ATTRIBUTES.includes(name) ? visible(text) : text);
    }
  }
  append(node, ...children);
  return node;
}

/**
 * Keep JupyterLab's shortcuts from acting while this element has the focus.
 * @param {Element} node
 */
export function suppressShortcuts(node) {
  node.setAttribute(SUPPRESS_SHORTCUTS, "true");
}

/** @type {WeakMap<Element, Promise<unknown>>} what an element waits for */
const loads = new WeakMap();

/**
 * Mark an element as busy until what it is to show has been loaded: what it shows until then does
 * not match what was chosen. Of several loads the last one counts.
 * @template T
 * @param {Element} node
 * @param {Promise<T>} loading
 * @returns {Promise<T>}
 */
export async function busyWhile(node, loading) {
  loads.set(node, loading);
  node.setAttribute("aria-busy", "true");
  try {
    return await loading;
  } finally {
    if (loads.get(node) === loading) node.removeAttribute("aria-busy");
  }
}

/**
 * Append children; those that are null, undefined or false are skipped.
 * @template {Element} T
 * @param {T} node
 * @param {...Child} children
 * @returns {T}
 */
export function append(node, ...children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (isList(child)) append(node, ...child);
    else node.append(child instanceof Node ? child : document.createTextNode(visible(String(child))));
  }
  return node;
}

/**
 * @param {Child} child
 * @returns {child is readonly Child[]}
 */
function isList(child) {
  return Array.isArray(child);
}

/**
 * Replace the children of an element and keep the focus: on the same element, on a new one with the
 * same name, or on the one in the same position if the number of elements has not changed.
 * @template {Element} T
 * @param {T} node
 * @param {...Child} children
 * @returns {T}
 */
export function replace(node, ...children) {
  const focused = focusedElement(node);
  const similar = () => focused ? [...node.querySelectorAll(focused.tagName)] : [];
  const before = focused && focused !== node && node.contains(focused) ? similar() : null;
  node.replaceChildren();
  append(node, ...children);
  if (!before || !focused) return node;
  if (node.contains(focused)) focus(focused);
  else if (FOCUSABLE.includes(focused.tagName)) focus(successor(focused, before, similar()));
  return node;
}

/**
 * @param {Element} focused
 * @param {Element[]} before
 * @param {Element[]} after
 * @returns {Element | null | undefined}
 */
function successor(focused, before, after) {
  return after.find((other) => nameOf(other) === nameOf(focused))
    ?? (before.length === after.length ? after[before.indexOf(focused)] : null);
}

/** @param {Element} node */
function nameOf(node) {
  return node.getAttribute("aria-label")
    ?? (node.getAttribute("title") || node.textContent || node.closest("label")?.textContent);
}

/**
 * The focused element, also within a shadow root.
 * @param {Element} node
 * @returns {Element | null}
 */
export function focusedElement(node) {
  const root = node.getRootNode();
  return root instanceof Document || root instanceof ShadowRoot ? root.activeElement : null;
}

/** @param {Element | null | undefined} node */
export function focus(node) {
  if (node instanceof HTMLElement || node instanceof SVGElement) {
    node.focus({ preventScroll: true });
  }
}

/**
 * The closest ancestor of an event's target, or the target itself, that matches a selector.
 * @param {Event} event
 * @param {string} selector
 * @returns {Element | null}
 */
export function closest(event, selector) {
  return event.target instanceof Element ? event.target.closest(selector) : null;
}

/**
 * Whether a key press is a shortcut of the browser or the host.
 * @param {KeyboardEvent} event
 */
export function hasModifier(event) {
  return event.ctrlKey || event.metaKey || event.altKey;
}

/**
 * A 16 × 16 icon drawn from path data in the color of the surrounding text.
 * @param {string} path
 */
export function icon(path) {
  return svg("svg", { viewBox: "0 0 16 16", class: "dn-icon", "aria-hidden": "true" },
    svg("path", { d: path }));
}

/**
 * @param {Child} label
 * @param {string | null} title
 * @param {(event: MouseEvent) => unknown} onClick
 * @param {Attributes} [attributes]
 */
export function button(label, title, onClick, attributes = {}) {
  return el("button", { type: "button", class: "dn-button", title, on: { click: onClick },
    ...attributes }, label);
}

/**
 * A button whose label is an icon or a symbol, named by its title.
 * @param {Child} label
 * @param {string} title
 * @param {(event: MouseEvent) => unknown} onClick
 * @param {Attributes} [attributes]
 */
export function iconButton(label, title, onClick, attributes = {}) {
  return button(label, title, onClick, { "aria-label": title, ...attributes });
}

/**
 * A button that looks like a link.
 * @param {Child} label
 * @param {string} title
 * @param {(event: MouseEvent) => unknown} onClick
 * @param {Attributes} [attributes]
 */
export function linkButton(label, title, onClick, attributes = {}) {
  return button(label, title, onClick, { class: "dn-link", ...attributes });
}

/**
 * A button that copies a string and confirms it for a moment.
 * @param {string} label
 * @param {string} title
 * @param {() => string | null | Promise<string | null>} text null: there is nothing to copy
 * @param {Attributes} [attributes]
 */
export function copyButton(label, title, text, attributes = {}) {
  const made = button(label, title, async () => {
    const copied = await text();
    if (copied === null) return;
    made.textContent = copyFeedback(await copy(copied));
    setTimeout(() => (made.textContent = label), COPY_FEEDBACK_MS);
  }, attributes);
  return made;
}

/**
 * Copy to the clipboard; false where a frame has no permission for it.
 * @param {string} text
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** @param {boolean} copied */
export function copyFeedback(copied) {
  return copied ? "Copied" : "Select the text to copy it";
}

/**
 * Call back when a value was entered: the field was left, a suggestion was taken, or Enter was
 * pressed (a browser that shows suggestions sends no change event for Enter).
 * @param {HTMLInputElement} input
 * @param {() => unknown} callback
 */
export function onEntered(input, callback) {
  input.addEventListener("change", callback);
  input.addEventListener("keydown", (event) => event.key === "Enter" && callback());
  return input;
}

/** An ID that is unique in the page. */
export function uniqueId() {
  return `dn-${Math.random().toString(36).slice(2, 9)}`;
}

/**
 * Follow the host's theme. It is derived from the text color, so that this works in any host.
 * @param {HTMLElement} root
 * @returns {() => void} stops following
 */
export function followTheme(root) {
  /** @type {number | undefined} */
  let timer;
  const update = () => {
    root.dataset.theme = lightness(getComputedStyle(root).color) > 0.55 ? "dark" : "light";
    // For parts that cover others: a host may name no background, or another than it shows.
    root.style.setProperty("--dn-host-background", background(root));
  };
  const changed = () => {
    update();
    // A theme's style sheet may load after its name has changed.
    clearTimeout(timer);
    timer = setTimeout(update, 400);
  };
  const observer = new MutationObserver(changed);
  for (const node of [document.documentElement, document.body]) {
    observer.observe(node, { attributes: true });
  }
  const preference = matchMedia("(prefers-color-scheme: dark)");
  preference.addEventListener("change", changed);
  changed();
  return () => {
    observer.disconnect();
    preference.removeEventListener("change", changed);
    clearTimeout(timer);
  };
}

/**
 * The lightness of a computed color, from 0 to 1. Browsers keep the notation of the style sheet.
 * @param {string} color
 */
function lightness(color) {
  const [, notation = "rgb", values = ""] = color.match(/^([a-z]+)\((?:[a-z][\w-]* )?(.*)\)$/)
    ?? [];
  const [first = 0, second = 0, third = 0] = values.match(/-?[\d.]+(e-?\d+)?/g)?.map(Number) ?? [];
  if (notation.startsWith("ok")) return first;
  if (notation.startsWith("l")) return first / 100;
  return (0.299 * first + 0.587 * second + 0.114 * third) / (notation === "color" ? 1 : 255);
}

/**
 * @param {Element} root
 * @returns {string | null} null: everything below is transparent
 */
function background(root) {
  /** @type {Node | null} */
  let node = root;
  while (node) {
    const color = node instanceof Element ? getComputedStyle(node).backgroundColor : "";
    if (color && !TRANSPARENT.test(color)) return color;
    node = node.parentNode ?? (node instanceof ShadowRoot ? node.host : null);
  }
  return null;
}
