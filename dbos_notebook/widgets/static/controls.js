// The buttons alone: what can be done with some workflows, the plan of a click, the receipt.
import { copy, el, followTheme, put, replace } from "./dom.js";
import { count } from "./format.js";
import { Link } from "./link.js";
import { Actions } from "./actions.js";

export function render({ model, el: host }) {
  const start = model.get("_start");
  const root = el("div", { class: "dn-explore dn-controls", "data-lm-suppress-shortcuts": "true" });
  host.append(root);
  const link = new Link(model, () => {});
  const banner = el("div", { class: "dn-banner", role: "alert", hidden: true });
  const said = el("span", { class: "dn-note" });
  const ids = () => model.get("workflow_ids");
  let closed = false;
  const ask = async (kind, question) => {
    try {
      const answer = await link.ask(kind, question);
      return closed ? null : answer;
    } catch (error) {
      replace(banner, el("b", {}, error.type ?? "Error"), el("span", {}, error.message));
      banner.hidden = false;
      return null;
    }
  };
  let round = 0;
  const about = () => {
    banner.hidden = true;
    const many = ids();
    replace(said, many.length === 1 ? el("code", {}, many[0]) : `${count(many.length)} workflows`);
    return actions.about(many, String(round++));
  };
  // There is no place here to show the new run: its ID is copied.
  const actions = new Actions(start.forbidden, ask, about, async (id) => {
    if (await copy(id)) replace(said, el("code", {}, id), " copied");
  });
  if (start.read_only) put(root, el("span", { class: "dn-note" }, start.forbidden));
  else {
    const again = el("button", { type: "button", class: "dn-quiet",
      title: "Ask again what is possible", on: { click: about } }, "ask again");
    put(root, el("div", { class: "dn-actions" }, said, actions.bar, again), banner, actions.panel);
    model.on("change:workflow_ids", about);
    about();
  }
  const unfollow = followTheme(root);
  return () => {
    closed = true;
    model.off("change:workflow_ids", about);
    link.close();
    unfollow();
  };
}

export default { render };
