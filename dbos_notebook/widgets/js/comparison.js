// Compares an original and its fork, in the view of one of them.
import { busyWhile, button, el, replace } from "./dom.js";
import { comparisonPanel, nodePanel } from "./node_panel.js";
import { runLink } from "./run_header.js";
/** @import {Child, ComparedRow, ComparisonAnswer, Key} from "./types.js" */
/** @import {Inspect} from "./inspect.js" */

/** @typedef {Pick<ComparedRow, "kind" | "group" | "ref" | "first" | "second">} ComparedNode */

export class Comparison {
  /** @param {Inspect} view in whose picture, notice line and panel the comparison is shown */
  constructor(view) {
    this.view = view;
    /** @type {readonly [string, string] | null} the IDs of the original and the fork; null: none */
    this.pair = null;
    /** @type {ComparisonAnswer | null} */
    this.found = null;
    this.turn = 0;
  }

  /**
   * @param {string} original
   * @param {string} fork
   * @param {boolean} [reload] read both runs again
   */
  async show(original, fork, reload = false) {
    const { view } = this;
    const { id } = view;
    const turn = this.turn += 1;
    const answer = await busyWhile(view.pictureBox, view.showErrorsOf(view.channel.ask("compare",
      { first: original, second: fork, anew: reload,
        view: { ...view.pictureView(), picture: "graph" } })));
    // The comparison may have been closed, or the run left, in the meantime.
    if (!answer || turn !== this.turn || id !== view.id) return;
    if (view.tab !== "graph") {
      view.tab = "graph";
      view.showTabs();
    }
    this.pair = [original, fork];
    this.found = answer;
    view.svgView.show(answer.picture, `Comparison of ${original} and ${fork}`,
      JSON.stringify([original, fork]));
    for (const label of view.svgView.legend.querySelectorAll("text")) {
      label.textContent = (label.textContent ?? "").replace("first run", "original").replace("second run", "fork");
    }
    view.highlightResults();
    view.showTools();
    const options = { offline: view.offline, openRun: (/** @type {string} */ other) => view.openRun(other) };
    replace(view.notice, el("b", {}, "Comparison"),
      el("span", {}, "original ", runLink(original, options)),
      el("span", {}, "fork ", runLink(fork, options)), el("span", { class: "dn-space" }),
      button("Close comparison", "Show the run alone", () => this.close()));
    view.notice.hidden = false;
    this.showDifferences();
  }

  /** @param {boolean} [reload] */
  async update(reload = false) {
    if (this.pair) await this.show(...this.pair, reload);
  }

  showDifferences() {
    if (!this.found) return;
    this.showPanel(comparisonPanel(this.found, (row) => this.choose(row), () => this.close()));
  }

  /** @param {...Child} parts */
  showPanel(...parts) {
    replace(this.view.panel, parts);
    this.view.showPanel();
  }

  /**
   * Show what the two runs did at one place, one below the other.
   * @param {ComparedNode} node
   */
  async choose(node) {
    const { view, pair, found } = this;
    if (!pair || !found) return;
    if (node.kind === "group" && node.group !== undefined) {
      await view.setOptions({ open: [...view.options.open, node.group] });
      return;
    }
    const ref = node.ref ?? found.picture.nodes.find((other) =>
      isSame(other.first, node.first) && isSame(other.second, node.second))?.ref;
    if (ref !== undefined) view.svgView.select(ref, true);
    /** @type {Child[]} */
    const parts = [button("‹ Differences", "Back to the list", () => this.showDifferences())];
    for (const key of [node.first, node.second]) {
      if (key === undefined) continue;
      const details = await view.showErrorsOf(view.channel.ask("node",
        { id: pair[0], key, view: {} }, `node ${JSON.stringify(key)}`));
      if (!details || !this.pair) return;
      parts.push(el("h4", {}, isSame(key, node.first) ? "original" : "fork"),
        nodePanel(details, { ...view.panelOptions(), canFork: false, actions: null,
          close: () => this.showDifferences() }));
    }
    this.showPanel(el("div", { class: "dn-compared" }, parts));
  }

  close() {
    this.discard();
    return busyWhile(this.view.pictureBox, this.view.load());
  }

  /** End the comparison where the view goes on to show something else. */
  discard() {
    const { view } = this;
    this.turn += 1;
    this.pair = null;
    this.found = null;
    view.notice.hidden = true;
    view.options.open = [];
    view.panel.hidden = true;
    view.panel.replaceChildren();
    view.svgView.scale = null;
    view.stamp = null;
  }
}

/**
 * @param {Key | undefined} key
 * @param {Key | undefined} other
 */
function isSame(key, other) {
  return JSON.stringify(key) === JSON.stringify(other);
}
