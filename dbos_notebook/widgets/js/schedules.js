// The schedules of the database, with buttons that pause, resume, trigger, backfill and delete each.
import { append, button, el, replace } from "./dom.js";
import { Actions } from "./actions.js";
import { formatCount, formatInstant, leafName, pluralize } from "./format.js";
/** @import {Action, Ask, Schedule} from "./types.js" */

/** @type {readonly [Action, string, string][]} */
const BUTTONS = [
  ["pause_schedule", "Pause", "Start no workflow until it is resumed"],
  ["resume_schedule", "Resume", "Start workflows again"],
  ["trigger_schedule", "Trigger", "Enqueue its workflow once, now"],
  ["backfill_schedule", "Backfill", "Enqueue the runs that it should have started in a period"],
  ["delete_schedule", "Delete", "Delete the schedule; the workflows that it started are kept"],
];

export class Schedules {
  /**
   * @param {Ask} ask
   * @param {{forbidden: string | null, read_only: boolean}} options
   */
  constructor(ask, { forbidden, read_only: readOnly }) {
    this.ask = ask;
    this.forbidden = forbidden;
    this.readOnly = readOnly;
    /** @type {string | null} */
    this.stamp = null;
    this.title = el("span", { class: "dn-title" });
    this.actions = new Actions(forbidden, ask, () => this.load());
    this.list = el("div", { class: "dn-schedules" });
    this.node = append(el("div", {}), this.actions.panel, this.list);
  }

  async load() {
    const answer = await this.ask("schedules", { stamp: this.stamp });
    if (!answer || answer.same) return;
    this.stamp = answer.stamp;
    const { rows, left_out: leftOut } = answer;
    replace(this.title, el("b", {}, pluralize(rows.length + leftOut, "schedule")));
    replace(this.list, rows.length ? rows.map((row) => this.row(row))
      : el("p", { class: "dn-note" }, "No schedule is stored in this database."),
    leftOut > 0 && el("p", { class: "dn-note" }, `… and ${formatCount(leftOut)} more`));
  }

  /** @param {Schedule} row */
  row(row) {
    const name = row.schedule_name;
    const isPaused = row.status === "PAUSED";
    const zone = row.cron_timezone ? ` ${row.cron_timezone}` : "";
    return el("div", { class: "dn-schedule", role: "group", "aria-label": name },
      el("div", {}, el("b", {}, name), " ",
        el("span", { class: isPaused ? "dn-warn" : "dn-muted" }, isPaused ? "paused" : "active")),
      el("div", { class: "dn-muted" }, el("code", {}, `${row.schedule ?? ""}${zone}`), " starts ",
        el("span", { title: row.workflow_name }, leafName(row.workflow_name ?? "")),
        row.queue_name && ` on ${row.queue_name}`,
        row.last_fired_at && [", last at ", instant(row.last_fired_at)],
        row.next && [", next at ", el("b", {}, formatInstant(row.next))]),
      !this.readOnly && el("div", { class: "dn-actions" }, BUTTONS
        .filter(([action]) => action !== (isPaused ? "pause_schedule" : "resume_schedule"))
        .map(([action, label, title]) => button(label, this.forbidden ?? title,
          () => this.actions.begin(action, {}, [name]),
          { disabled: Boolean(this.forbidden), "aria-label": `${label} ${name}` }))));
  }
}

/** @param {string} text a time as DBOS stores it, or what another program has stored */
function instant(text) {
  const at = Date.parse(text);
  return Number.isNaN(at) ? text : formatInstant(at);
}
