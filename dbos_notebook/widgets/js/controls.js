// The action buttons alone, for workflows that a cell has already found; or the schedules.
import { append, button, el, followTheme, replace } from "./dom.js";
import { mount } from "./fallback.js";
import { Actions } from "./actions.js";
import { formatCount, leafName, pluralize, shortenId } from "./format.js";
import { KernelChannel } from "./kernel_channel.js";
import { Schedules } from "./schedules.js";
import { statusChip } from "./status.js";
import { StatusLine } from "./status_line.js";
/** @import {Ask, ControlsTraits, Model, RenderProps} from "./types.js" */

export class Controls {
  /**
   * @param {Model<ControlsTraits>} model
   * @param {HTMLElement} root
   */
  constructor(model, root) {
    const start = model.get("_start");
    const { ids, forbidden } = start;
    this.ids = ids;
    this.status = new StatusLine(() => this.load(), () => "");
    this.channel = new KernelChannel(model, this.status);
    /** @type {Ask} */
    this.ask = async (kind, question, lane) => {
      const answer = await this.status.showErrorsOf(this.channel.ask(kind, question, lane));
      if (answer) this.status.clearError();
      return answer;
    };
    this.schedules = start.schedules ? new Schedules(this.ask, start) : null;
    this.title = this.schedules?.title ?? el("span", { class: "dn-title" });
    this.actions = new Actions(forbidden, this.ask, () => this.load());
    append(root, el("div", { class: "dn-top" }, this.title,
      !this.schedules && !start.read_only && this.actions.bar,
      el("span", { class: "dn-space" }), this.status.line,
      button("Refresh", "Read the database again", () => this.load())),
    this.status.banner, this.schedules?.node ?? this.actions.panel);
    this.unfollowTheme = followTheme(root);
    this.load();
  }

  async load() {
    if (this.schedules) {
      await this.schedules.load();
      return;
    }
    const answer = await this.ask("rows", {});
    if (!answer) return;
    const [row] = answer.rows;
    replace(this.title, this.ids.length === 1 && row
      ? [statusChip(row.status), el("b", { title: row.name }, leafName(row.name ?? "")),
        el("code", { title: row.id }, shortenId(row.id))]
      : [el("b", {}, pluralize(this.ids.length, "workflow")),
        Object.entries(answer.counts).map(([status, count]) =>
          el("span", { class: "dn-status" }, statusChip(status), el("b", {}, formatCount(count))))]);
    await this.actions.setWorkflows(this.ids, JSON.stringify(answer.counts));
  }

  /** Close the plan or form; return whether there was one. */
  dismiss() {
    return (this.schedules?.actions ?? this.actions).dismiss();
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
