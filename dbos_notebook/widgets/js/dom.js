// Elements out of plain values. This is the one place where a text reaches the page, and it goes in
// as a text node or as the value of a named attribute: nothing here, and nothing that uses it,
// parses markup.

// Where the focus can be. JupyterLab's shortcuts stay away from an element that says so, and ask the
// focused one alone: without this, two d's pressed on a row would delete the cell.
const FOCUSABLE = ["BUTTON", "INPUT", "SELECT", "SUMMARY"];
const SVG = "http://www.w3.org/2000/svg";
const CLEAR = /(^rgba\(.*,|\/) 0\)$/;

// el("td", {class: "n", title: text, on: {click: f}}, "text", child, null, [more])
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    } else if (name === "value" || name === "checked" || name === "disabled") {
      node[name] = value;
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  if (FOCUSABLE.includes(node.tagName) || "tabindex" in attributes) {
    node.setAttribute("data-lm-suppress-shortcuts", "true");
  }
  put(node, ...children);
  return node;
}

export function put(node, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

// What had the focus has it again: itself, or what has its name among the new. Its place too, where
// as many came as went; else another button would stand there, and be pressed.
export function replace(node, ...children) {
  const held = node.getRootNode().activeElement;
  const alike = () => [...node.querySelectorAll(held.tagName)];
  const before = held && held !== node && node.contains(held) ? alike() : null;
  node.replaceChildren();
  put(node, ...children);
  if (!before) return node;
  const again = node.contains(held) ? held : FOCUSABLE.includes(held.tagName) && heir(held, before,
    alike());
  if (again) again.focus({ preventScroll: true });
  return node;
}

function heir(held, before, after) {
  return after.find((one) => nameOf(one) === nameOf(held))
    ?? (before.length === after.length ? after[before.indexOf(held)] : null);
}

function nameOf(node) {
  return node.getAttribute("aria-label") ?? (node.title || node.textContent);
}

// An icon of 16 × 16 from path data; drawn with the colour of the text around it.
export function icon(path, name = "") {
  return svg(
    "svg",
    { viewBox: "0 0 16 16", class: `dn-icon ${name}`, "aria-hidden": "true" },
    svg("path", { d: path }),
  );
}

// What was typed is meant when the field is left, a suggestion was taken, or Enter was pressed; a
// browser that shows suggestions keeps Enter to itself.
export function onEntered(input, act) {
  input.addEventListener("change", act);
  input.addEventListener("keydown", (event) => event.key === "Enter" && act());
  return input;
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // a frame without the permission: the text stands there to be copied by hand
  }
}

// Dark or light, told from the colour of the text that the host gives, whatever host it is.
export function followTheme(root) {
  let later;
  const look = () => {
    root.dataset.theme = lightness(getComputedStyle(root).color) > 0.55 ? "dark" : "light";
    // For what must cover what it lies on, where the host has no name for its ground.
    root.style.setProperty("--dn-behind", ground(root));
  };
  const looked = () => {
    look();
    // A theme's style sheet may come after its name.
    clearTimeout(later);
    later = setTimeout(look, 400);
  };
  const watch = new MutationObserver(looked);
  for (const node of [document.documentElement, document.body]) {
    watch.observe(node, { attributes: true });
  }
  looked();
  return () => {
    watch.disconnect();
    clearTimeout(later);
  };
}

// From 0 to 1. A computed colour is of whatever form the host's style sheet gave it.
function lightness(colour) {
  const [, form, values] = colour.match(/^([a-z]+)\((?:[a-z][\w-]* )?(.*)\)$/) ?? [null, "rgb", ""];
  const [first = 0, second = 0, third = 0] = values.match(/-?[\d.]+(e-?\d+)?/g)?.map(Number) ?? [];
  if (form.startsWith("ok")) return first;
  if (form.startsWith("l")) return first / 100;
  return (0.299 * first + 0.587 * second + 0.114 * third) / (form === "color" ? 1 : 255);
}

function ground(root) {
  for (let node = root; node; node = node.parentNode ?? node.host) {
    const colour = node instanceof Element ? getComputedStyle(node).backgroundColor : "";
    if (colour && !CLEAR.test(colour)) return colour;
  }
  return "Canvas";
}
