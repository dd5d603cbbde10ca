// The action buttons alone, for workflows that a cell has already found.
import { append, button, el, followTheme, replace } from "./dom.js";
import { mount } from "./fallback.js";
import { Actions } from "./actions.js";
import { formatCount, pluralize } from "./format.js";
import { KernelChannel } from "./kernel_channel.js";
import { statusChip } from "./status.js";
import { StatusLine } from "./status_line.js";
/** @import {Ask, ControlsTraits, Model, RenderProps} from "./types.js" */

class Controls {
  /**
   * @param {Model<ControlsTraits>} model
   * @param {HTMLElement} root
   */
  constructor(model, root) {
    const { ids, forbidden } = model.get("_start");
    this.ids = ids;
    this.status = new StatusLine(() => this.load(), () => "");
    this.channel = new KernelChannel(model, this.status);
    /** @type {Ask} */
    this.ask = async (kind, question, lane) => {
      const answer = await this.status.showErrorsOf(this.channel.ask(kind, question, lane));
      if (answer) this.status.clearError();
      return answer;
    };
    this.title = el("span", { class: "dn-title" });
    this.actions = new Actions(forbidden, this.ask, () => this.load());
    append(root, el("div", { class: "dn-top" }, this.title, this.actions.bar,
      el("span", { class: "dn-space" }), this.status.line,
      button("Refresh", "Read the workflows again", () => this.load())),
    this.status.banner, this.actions.panel);
    this.unfollowTheme = followTheme(root);
    this.load();
  }

  async load() {
    const answer = await this.ask("rows", {});
    if (!answer) return;
    const [row] = answer.rows;
    replace(this.title, this.ids.length === 1 && row
      ? [statusChip(row.status), el("b", {}, row.name), el("code", {}, row.id)]
      : [el("b", {}, pluralize(this.ids.length, "workflow")),
        Object.entries(answer.counts).map(([status, count]) =>
          el("span", { class: "dn-status" }, statusChip(status), el("b", {}, formatCount(count))))]);
    await this.actions.setWorkflows(this.ids, JSON.stringify(answer.counts));
  }

  close() {
    this.channel.close();
    this.status.close();
    this.unfollowTheme();
  }
}

/** @param {RenderProps<ControlsTraits>} props */
function render(props) {
  return mount(props, "dn-controls", (model, root) => new Controls(model, root));
}

export default { render };
