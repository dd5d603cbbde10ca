// Mounts a view in a host. A notebook also holds the view's HTML for readers without a kernel, in the
// output below it; that is hidden once the kernel has answered, for as long as the view is there.
import { el } from "./dom.js";
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
  // JupyterLab's shortcuts do not fire from within.
  const root = el("div", { class: `dn-view ${name}`, "data-lm-suppress-shortcuts": "true" });
  host.append(root);
  const stopWaiting = hideFallback(root, host, model);
  const view = create(model, root);
  return () => {
    stopWaiting();
    view.close();
  };
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
