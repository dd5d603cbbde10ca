// Where a notebook shows a view, its HTML for readers without a kernel is in the output below it. That
// is hidden once a kernel has answered the view, and as long as the view is there.
import { el } from "./dom.js";

const WAITING = "dn-waiting";

// Returns what ends the waiting, for a view that goes before it was answered.
export function place(root, host, model) {
  host.append(root);
  const token = model.get("_token");
  if (!token) return () => {};
  const answered = () => {
    end();
    root.classList.remove(WAITING);
    host.append(el("style", {}, `[data-dn-fallback="${token}"] { display: none; }`));
  };
  const end = () => model.off("msg:custom", answered);
  root.classList.add(WAITING);
  model.on("msg:custom", answered);
  return end;
}
