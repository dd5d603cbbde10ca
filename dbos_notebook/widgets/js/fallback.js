// Mounts a view in a host. A notebook also holds the view's HTML for readers without a kernel, in the
// output below it; that is hidden once the kernel has answered, for as long as the view is there.
import { el, hasModifier, suppressShortcuts } from "./dom.js";
/** @import {BaseTraits, Model, RenderProps} from "./types.js" */

const WAITING = "dn-waiting";

/**
 * Create a view in the host's element; return what removes it.
 * @template {BaseTraits} Traits
 * @param {RenderProps<Traits>} props
 * @param {string} name the view's own CSS class
 * @param {(model: Model<Traits>, root: HTMLElement) => {close: () => void}} create
 * @returns {() => void}
 */
export function mount({ model, el: host }, name, create) {
  // Focusable, so that a click anywhere in the view gives it the focus.
  const root = el("div", { class: `dn-view ${name}`, tabindex: "-1" });
  keepShortcuts(root);
  host.append(root);
  const stopWaiting = hideFallback(root, host, model);
  const view = create(model, root);
  return () => {
    stopWaiting();
    view.close();
  };
}

/**
 * Keep the host's shortcuts from acting while the view has the focus: pressing "d" twice would delete
 * the cell in JupyterLab.
 * @param {HTMLElement} root
 */
function keepShortcuts(root) {
  // JupyterLab looks at the focused element alone, before the event gets here.
  root.addEventListener("focusin", (event) => {
    if (event.target instanceof Element) suppressShortcuts(event.target);
  });
  // Other hosts listen further up. Tab and Escape lead out of the view.
  root.addEventListener("keydown", (event) => {
    if (!hasModifier(event) && event.key !== "Tab" && event.key !== "Escape") event.stopPropagation();
  });
}

/**
 * @template {BaseTraits} Traits
 * @param {HTMLElement} root
 * @param {HTMLElement} host
 * @param {Model<Traits>} model
 */
function hideFallback(root, host, model) {
  const token = model.get("_token");
  if (!token) return () => {};
  const onAnswer = () => {
    stopWaiting();
    root.classList.remove(WAITING);
    host.append(el("style", {}, `[data-dn-fallback="${token}"] { display: none; }`));
  };
  const stopWaiting = () => model.off("msg:custom", onAnswer);
  root.classList.add(WAITING);
  model.on("msg:custom", onAnswer);
  return stopWaiting;
}
