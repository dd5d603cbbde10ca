// The buttons alone, for workflows that a cell has already found.
import { el, followTheme, put, replace } from "./dom.js";
import { place } from "./fallback.js";
import { Actions } from "./actions.js";
import { chip, count } from "./format.js";
import { Link } from "./kernel_channel.js";
import { State } from "./status_line.js";

function render({ model, el: host }) {
  const { ids, forbidden } = model.get("_start");
  const root = el("div", { class: "dn-view dn-controls" });
  const end = place(root, host, model);
  const state = new State(() => show(), () => "");
  const link = new Link(model, state);
  const ask = async (kind, question, lane) => {
    const answer = await state.try(link.ask(kind, question, lane));
    if (answer) state.answered();
    return answer;
  };
  const title = el("span", { class: "dn-title" });
  const show = async () => {
    const answer = await ask("rows", {});
    if (!answer) return;
    const [row] = answer.rows;
    replace(title, ids.length === 1 && row
      ? [chip(row.status), el("b", {}, row.name ?? ""), el("code", {}, row.id)]
      : [el("b", {}, `${count(ids.length)} workflows`),
        Object.entries(answer.counts).map(([status, number]) =>
          el("span", { class: "dn-status" }, chip(status), el("b", {}, count(number))))]);
    await actions.about(ids, JSON.stringify(answer.counts));
  };
  const actions = new Actions(forbidden, ask, show);
  const refresh = el("button", { type: "button", class: "dn-button", title: "Ask again now",
    on: { click: show } }, "Refresh");
  put(root, el("div", { class: "dn-top" }, title, actions.bar, el("span", { class: "dn-space" }),
    state.line, refresh), state.banner, actions.panel);
  const unfollow = followTheme(root);
  show();
  return () => {
    end();
    link.close();
    state.close();
    unfollow();
  };
}

export default { render };
