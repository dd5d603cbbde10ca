// Two runs against each other, an original and its fork, in the view of one of them.
import { el, replace } from "./dom.js";
import { comparisonPanel, nodePanel } from "./node_panel.js";
import { button, otherRun } from "./run_header.js";

export class Comparison {
  // view: the Inspect in whose picture, strip and panel it is shown.
  constructor(view) {
    this.view = view;
    this.pair = null;
    this.turn = 0;
  }

  async show(first, second, anew = false) {
    const { view } = this;
    const { id } = view;
    const turn = this.turn += 1;
    const answer = await view.try(view.link.ask("compare",
      { first, second, anew, view: { ...view.view(), picture: "graph" } }));
    // What was ended or left meanwhile does not come back.
    if (!answer || turn !== this.turn || id !== view.id) return;
    if (view.tab !== "graph") {
      view.tab = "graph";
      view.showTabs();
    }
    this.pair = [first, second];
    this.found = answer;
    view.canvas.show(answer.picture, `Comparison of ${first} and ${second}`);
    view.fade();
    view.showTools();
    replace(view.strip, el("b", {}, "Comparison"), el("span", {}, "original ", otherRun(first, view)),
      el("span", {}, "fork ", otherRun(second, view)), el("span", { class: "dn-space" }),
      button("End", "Show the run alone", () => this.end()));
    view.strip.hidden = false;
    this.list();
  }

  again(anew = false) {
    return this.show(...this.pair, anew);
  }

  list() {
    this.tell(comparisonPanel(this.found, {
      goCompared: (row) => this.go(row),
      endComparison: () => this.end(),
    }));
  }

  tell(...parts) {
    replace(this.view.panel, parts);
    this.view.panel.hidden = false;
  }

  // What the two runs did at one place, one below the other.
  async go(node) {
    const { view } = this;
    if (node.kind === "group") {
      await view.change({ open: [...view.options.open, node.group] });
      return;
    }
    const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
    const ref = node.ref ?? this.found.picture.nodes.find((other) =>
      same(other.first, node.first) && same(other.second, node.second))?.ref;
    if (ref) view.canvas.select(ref, true);
    const parts = [button("‹ What differs", "Back to the list", () => this.list())];
    for (const key of [node.first, node.second].filter((each) => each !== undefined)) {
      const found = await view.try(view.link.ask("node", { id: this.pair[0], key, view: {} },
        `node${JSON.stringify(key)}`));
      if (!found || !this.pair) return;
      parts.push(el("h4", {}, same(key, node.first) ? "original" : "fork"),
        nodePanel(found, { ...view.doing(found), mayFork: false, actions: null,
          close: () => this.list() }));
    }
    this.tell(el("div", { class: "dn-two" }, parts));
  }

  end(load = true) {
    const { view } = this;
    this.turn += 1;
    this.pair = null;
    this.found = null;
    view.strip.hidden = true;
    view.options.open = [];
    view.panel.hidden = true;
    view.panel.replaceChildren();
    view.canvas.scale = null;
    view.stamp = null;
    return load ? view.load() : null;
  }
}
