// The board: what is wrong, what waits and runs, what finished in a period, and what failed.
import { Actions } from "./actions.js";
import { append, busyWhile, button, copy, copyFeedback, el, followTheme, replace, svg } from "./dom.js";
import { mount } from "./fallback.js";
import { activityLine, ageOf, errorLine, formatClock, formatCount, formatDate, formatDuration, formatInstant, formatSeconds, idLink, leafName, middleCut, pluralize, runningTime, shortClassName, shortenId } from "./format.js";
import { KernelChannel } from "./kernel_channel.js";
import { Polling } from "./polling.js";
import { FINISHED, UNFINISHED, statusChip, statusPhrase } from "./status.js";
import { StatusLine } from "./status_line.js";
/** @import {Activity, Ask, BoardDurations, BoardFacts, BoardFailure, BoardFinding, BoardQueue, BoardTraits, Child, ListView, Model, Navigation, RenderProps, Row} from "./types.js" */

const POLL_MS = 5000;
/** Between two readings of what needs attention, and of causes: they cost more than the rest. */
const ATTENTION_MS = 60_000;
const CAUSES_MS = 30_000;
/** Each is read for at most 1/N of the time. */
const SLOW_SHARE = 300;
const CHART_WIDTH = 720;
const CHART_HEIGHT = 96;
const LEAST_BAR = 2; // so that one failure in a thousand is seen
const DAY_MS = 86_400_000;
/** The status whose mark and color a severity has. */
const SEVERITY_STATUS = { critical: "ERROR", warning: "ENQUEUED", info: "CANCELLED" };
/** The labels of the actions that help a finding. */
const REMEDIES = { cancel: "Cancel", resume: "Resume", backfill_schedule: "Backfill" };
/** Workflows that the title of a button names. */
const MOST_NAMED = 5;
const TICKS = [0, 0.25, 0.5, 0.75, 1];
const RECOVERY = "MAX_RECOVERY_ATTEMPTS_EXCEEDED";
/** Of the statuses of finished workflows, success first, then the most severe. */
const TILES = ["SUCCESS", ...FINISHED.filter((status) => status !== "SUCCESS")];

/**
 * The targets of an action in the words of its button. They may be others than those affected: the
 * runs that hold a queue.
 * @param {string[]} targets
 * @param {string[]} ids those affected, the oldest first
 * @param {number} affected
 */
function describeTargets(targets, ids, affected) {
  if (targets.some((id) => !ids.includes(id))) {
    const more = targets.length - 1;
    return `${shortenId(targets[0] ?? "")}${more > 0 ? ` and ${formatCount(more)} more` : ""}`;
  }
  const count = formatCount(targets.length);
  return affected > targets.length ? `the oldest ${count} of ${formatCount(affected)}` : count;
}

export class Board {
  /**
   * @param {Model<BoardTraits>} model
   * @param {HTMLElement} root
   * @param {Navigation | null} [navigation] leads to the list, where the board is part of another view
   */
  constructor(model, root, navigation = null) {
    this.model = model;
    this.root = root;
    this.navigation = navigation;
    this.start = model.get("_start");
    /** @type {string | null} */
    this.stamp = null;
    this.status = new StatusLine(() => this.load());
    this.channel = new KernelChannel(model, this.status);
    this.polling = new Polling(root, model, {
      now: () => this.now(),
      clock: POLL_MS,
      interval: () => POLL_MS,
      isReady: () => this.channel.isIdle("board"),
      poll: () => this.load(this.stamp),
      onChange: () => this.status.show(),
    });
    this.polling.button.title = "Update every 5 s while visible";
    this.windows = el("div", { class: "dn-segments", role: "group", "aria-label": "Period" });
    this.tiles = el("div", { class: "dn-tiles" });
    this.chart = el("figure", { class: "dn-chart" });
    this.attention = el("section", { "aria-label": "Needs attention", hidden: true });
    this.attentionAt = 0;
    this.attentionTook = 0;
    this.causesAt = 0;
    this.causesTook = 0;
    this.causesOf = "";
    /** @type {string | null} */
    this.causesStamp = null;
    /** @type {Ask} */
    const ask = (kind, question, lane) =>
      this.status.showErrorsOf(this.channel.ask(kind, question, lane));
    this.actions = new Actions(this.start.forbidden, ask, () => this.load(),
      navigation ? (id) => navigation.open(id) : undefined);
    this.failures = el("section", { "aria-label": "Failures" });
    this.queues = el("section", { "aria-label": "Queues" });
    this.durations = el("section", { "aria-label": "Durations" });
    this.build();
    this.onWindow = () => {
      this.navigation?.changed();
      this.showWindows();
      const loading = this.load();
      for (const part of [this.tiles, this.chart]) busyWhile(part, loading);
    };
    model.on("change:window", this.onWindow);
    this.unfollowTheme = followTheme(root);
    this.load();
  }

  now() {
    return this.status.now();
  }

  build() {
    const { location } = this.start;
    append(this.root,
      el("div", { class: "dn-top" }, el("b", { class: "dn-title", title: location }, location),
        el("span", { class: "dn-space" }), this.windows, this.polling.button,
        button("Refresh", "Read the board again", () => this.load())),
      this.status.banner, this.actions.panel, this.tiles, this.attention, this.chart,
      el("div", { class: "dn-columns" }, this.failures,
        el("div", {}, this.queues, this.durations)), this.status.line);
    this.root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.defaultPrevented || !this.actions.dismiss()) return;
      event.preventDefault();
    });
    this.showWindows();
  }

  showWindows() {
    const current = this.model.get("window");
    replace(this.windows, this.start.windows.map((window) => el("button", { type: "button",
      "aria-pressed": String(window === current), title: `Finished in the last ${window}`,
      on: { click: () => this.setWindow(window) } }, window)));
  }

  /** @param {string} window */
  setWindow(window) {
    this.model.set("window", window);
    this.model.save_changes();
  }

  /** @param {string | null} [stamp] nothing is sent if this still holds */
  async load(stamp = null) {
    const answer = await this.status.showErrorsOf(this.channel.ask("board", { stamp }));
    if (!answer) return;
    this.status.updated(answer);
    const isDue = (/** @type {number} */ at, /** @type {number} */ pause, /** @type {number} */ took) =>
      !stamp || Date.now() - at > Math.max(pause, SLOW_SHARE * took);
    if (isDue(this.causesAt, CAUSES_MS, this.causesTook)) this.loadCauses();
    if (isDue(this.attentionAt, ATTENTION_MS, this.attentionTook)) this.loadAttention();
    if (answer.same) return;
    this.stamp = answer.stamp;
    this.showTiles(answer);
    this.showChart(answer);
    this.showQueues(answer);
  }

  /** Read and show what failed by cause, and how long the workflows took. */
  async loadCauses() {
    this.causesAt = Date.now();
    const window = this.model.get("window");
    const stamp = window === this.causesOf ? this.causesStamp : null;
    const asked = this.status.showErrorsOf(this.channel.ask("causes", { stamp }));
    if (window !== this.causesOf) {
      for (const part of [this.failures, this.durations]) busyWhile(part, asked);
    }
    const answer = await asked;
    if (!answer) return;
    this.causesTook = answer.took;
    this.causesOf = window;
    this.causesStamp = answer.stamp;
    if (answer.same) return;
    const { failures, more_failures: more, durations, more_durations: moreDurations } = answer;
    replace(this.failures, el("h4", {}, "Failures"),
      failures.length
        ? table([heading("cause"), heading("count", true), heading("unrepaired", true), heading("last", true)],
          failures.map((failure) => this.failureLine(failure)))
        : el("p", { class: "dn-note" }, "No failures in this period."),
      more > 0 && el("p", { class: "dn-note" }, `… and ${pluralize(more, "more cause")}: widget.failures`));
    replace(this.durations, el("h4", {}, "Durations"),
      durations.length > 0
        ? table([heading("workflow"), heading("runs", true), heading("p50", true), heading("p99", true)],
          durations.map((each) => this.durationLine(each)))
        : el("p", { class: "dn-note" }, "Nothing finished in this period."),
      moreDurations > 0 && el("p", { class: "dn-note" },
        `… and ${formatCount(moreDurations)} more: db.workflow_statistics()`));
  }

  /** Read and show what is wrong, and which active workflows wait for a person. */
  async loadAttention() {
    this.attentionAt = Date.now();
    const answer = await this.status.showErrorsOf(this.channel.ask("attention", {}));
    if (!answer) return;
    const { findings, more_findings: moreFindings, rows, left_out: leftOut, examined } = answer;
    this.attentionTook = answer.took;
    this.attention.hidden = !rows.length && !findings.length;
    replace(this.attention, el("h4", {}, "Needs attention"),
      findings.length > 0 && table([heading("finding"), heading("affected", true), heading("since", true)],
        findings.map((finding) => this.findingLine(finding))),
      moreFindings > 0 && el("p", { class: "dn-note" },
        `… and ${pluralize(moreFindings, "more finding")}: db.diagnose()`),
      rows.length > 0 && table([heading("waits for a person"), heading("created", true)],
        rows.map(({ row, activity, count }) => this.attentionLine(row, activity, count))),
      leftOut > 0 && el("p", { class: "dn-note" }, `… and ${formatCount(leftOut)} more`),
      examined && el("p", { class: "dn-note" }, `Of the ${formatCount(examined)} oldest active workflows.`));
  }

  /** @param {BoardFinding} finding */
  findingLine({ severity, subject, full_subject: title, says, evidence, remedy, affected, since, ids, action,
    targets = [], options = {} }) {
    const [oldest] = ids;
    return [el("tr", {},
      el("td", { class: "dn-wide" },
        el("div", { class: "dn-line" }, statusChip(SEVERITY_STATUS[severity], severity),
          el("span", { class: "dn-name", title }, subject), says)),
      el("td", { class: "n" }, formatCount(affected)),
      el("td", { class: "n" }, since !== undefined && ageOf(since, this.now()))),
    el("tr", { class: "dn-second-line" }, el("td", { colspan: 3 },
      el("div", { class: "dn-line" }, remedy,
        oldest !== undefined && this.workflowLink(oldest, ids.length > 1 ? "the oldest" : ""),
        action && !this.start.read_only && button(`${REMEDIES[action]} ${action === "backfill_schedule" ? "…"
          : describeTargets(targets, ids, affected)}`, `Show what this would do to ${targets.slice(0, MOST_NAMED).join(", ")}${
          targets.length > MOST_NAMED ? " …" : ""}`,
          () => this.actions.begin(action, options, targets),
          { disabled: Boolean(this.start.forbidden) })),
      el("details", { class: "dn-muted" }, el("summary", {}, "Evidence"), evidence)))];
  }

  /**
   * A link that opens a workflow, or copies its ID where nothing can be opened.
   * @param {string} id
   * @param {string} [before] what stands before the ID
   * @param {string} [parent]
   */
  workflowLink(id, before = "", parent = undefined) {
    const { navigation } = this;
    const link = idLink(id, navigation ? `Show ${id}` : `Copy the ID ${id}`, async () => {
      if (navigation) navigation.open(id);
      else link.title = copyFeedback(await copy(id));
    }, parent);
    return before ? el("span", {}, `${before} `, link) : link;
  }

  /**
   * @param {Row} row
   * @param {Activity} activity
   * @param {number} count workflows of the same name in the same situation
   */
  attentionLine({ id, status, name = "workflow", parent_workflow_id: parent, created_at: created },
    activity, count) {
    return el("tr", {},
      el("td", { class: "dn-wide" },
        el("div", { class: "dn-line" }, statusChip(status),
          el("span", { class: "dn-name", title: name }, count > 1 && `${formatCount(count)} × `,
            leafName(name)), this.workflowLink(id, count > 1 ? "the oldest" : "", parent)),
        activityLine(activity)),
      el("td", { class: "n" }, created !== undefined && ageOf(created, this.now())));
  }

  // --- showing -----------------------------------------------------------------------------------

  /** @param {BoardFacts} facts */
  showTiles({ active, series }) {
    const counts = new Map(Object.entries(series).map(([status, bars]) => [status, sum(bars)]));
    const total = sum([...counts.values()]);
    const failed = (counts.get("ERROR") ?? 0) + (counts.get(RECOVERY) ?? 0);
    const note = (/** @type {string} */ status) => status === "ERROR" && total
      ? `${formatShare(failed / total)} of ${formatCount(total)}` : this.model.get("window");
    replace(this.tiles,
      UNFINISHED.map((status) => this.tile(status, active[status] ?? 0, "now", { status: [status] })),
      el("i", { class: "dn-rule", "aria-hidden": "true" }),
      // Rare: shown where there is one.
      TILES.filter((status) => status !== RECOVERY || counts.get(status))
        .map((status) => this.tile(status, counts.get(status) ?? 0, note(status),
          { status: [status], completed_after: this.model.get("window") })));
  }

  /**
   * A number, which leads to the workflows that it counts.
   * @param {string} status
   * @param {number} count
   * @param {string} note
   * @param {Partial<ListView>} filters
   */
  tile(status, count, note, filters) {
    const { navigation } = this;
    const content = [statusChip(status), el("b", {}, formatCount(count)),
      el("span", { class: "dn-muted" }, note)];
    return navigation
      ? el("button", { type: "button", class: "dn-tile", "data-none": !count,
        on: { click: () => navigation.filter(filters) } }, content)
      : el("div", { class: "dn-tile", "data-none": !count }, content);
  }

  /**
   * A label, which leads to the workflows that match.
   * @param {Child} label
   * @param {string} title
   * @param {Partial<ListView>} filters
   * @param {string} [kind] its class
   * @param {boolean} [isTabStop] false: the keyboard reaches another link to the same
   */
  filterLink(label, title, filters, kind = "dn-name dn-cut", isTabStop = true) {
    const { navigation } = this;
    return navigation
      ? button(label, title, () => navigation.filter(filters), { class: `${kind} dn-filter-link`,
        tabindex: isTabStop ? null : "-1" })
      : el("span", { class: kind, title }, label);
  }

  /** @param {BoardFacts} facts */
  showChart({ begin, width, bars: count, series }) {
    // The most severe at the bottom, then statuses that DBOS does not know.
    const statuses = [...FINISHED.filter((status) => series[status]),
      ...Object.keys(series).filter((status) => !FINISHED.includes(status))];
    const indices = [...Array(count).keys()];
    const at = (/** @type {string} */ status, /** @type {number} */ index) =>
      series[status]?.[index] ?? 0;
    const describe = (/** @type {(status: string) => number} */ number) => statuses
      .filter(number).map((status) => `${formatCount(number(status))} ${statusPhrase(status)}`)
      .join(", ");
    const highest = Math.max(1, ...indices.map((index) =>
      sum(statuses.map((status) => at(status, index)))));
    const step = CHART_WIDTH / count;
    const bars = indices.map((index) => {
      let y = CHART_HEIGHT;
      const parts = statuses.filter((status) => at(status, index)).map((status) => {
        const height = Math.max(LEAST_BAR, (at(status, index) / highest) * (CHART_HEIGHT - 2));
        y -= height;
        return svg("rect", { x: index * step + 1, y, width: step - 2, height, "data-status": status });
      });
      const title = `${formatInstant(begin + index * width).replace(/\.\d+ /, " ")}, `
        + `${formatDuration(width)}: ${describe((status) => at(status, index)) || "none finished"}`;
      return svg("g", {}, parts, svg("rect", { x: index * step, y: 0, width: step,
        height: CHART_HEIGHT, class: "dn-hover" }, svg("title", {}, title)));
    });
    const summary = describe((status) => sum(series[status] ?? []));
    const length = count * width;
    replace(this.chart,
      el("figcaption", {}, el("b", {}, "Finished workflows"), el("span", { class: "dn-muted" }, summary
        ? ` per ${formatDuration(width)}, at most ${formatCount(highest)}` : ": none in this period")),
      svg("svg", { viewBox: `0 -1 ${CHART_WIDTH} ${CHART_HEIGHT + 1}`, preserveAspectRatio: "none",
        role: "img", "aria-label": `Finished workflows over time: ${summary || "none"}` }, bars),
      el("div", { class: "dn-axis", "aria-hidden": "true" }, TICKS.map((tick) =>
        el("span", {}, tick === 1 ? "now" : formatTick(begin + tick * length, length)))));
  }

  /** @param {BoardFacts} facts */
  showQueues({ queues, more_queues: more }) {
    const most = Math.max(1, ...queues.map((queue) => queue.enqueued));
    replace(this.queues, el("h4", {}, "Queues"),
      queues.length
        ? table([heading("queue"), heading("enqueued", true), heading("running", true),
          heading("oldest wait", true)],
        queues.map((queue) => this.queueLine(queue, most)))
        : el("p", { class: "dn-note" }, "No queue is registered or has workflows."),
      more > 0 && el("p", { class: "dn-note" }, `… and ${formatCount(more)} more: widget.queues`));
  }

  /** @param {BoardFailure} failure */
  failureLine({ name, step, type = "", message = "", count, unaddressed, ancestors, versions, last, id, ids }) {
    const filters = { name: [name], status: ["ERROR"], error: type && shortClassName(type),
      completed_after: this.model.get("window") };
    const title = `Workflows that failed so: ${name}`;
    const error = errorLine(type, message);
    const notes = [
      versions.length > 0 && `version ${versions.slice(0, 3).join(", ")}${versions.length > 3 ? ", …" : ""}`,
      ancestors > 0 && `${pluralize(ancestors, "parent")} failed because of it`,
    ].filter(Boolean);
    return [el("tr", {},
      el("td", { class: "dn-wide" },
        el("div", { class: "dn-line" }, this.filterLink(leafName(name), title, filters),
          step && el("span", { class: "dn-failed-step", title: step }, leafName(step)),
          this.workflowLink(id))),
      el("td", { class: "n" }, this.filterLink(formatCount(count), title, filters, "dn-count", false)),
      el("td", { class: "n" }, unaddressed ? formatCount(unaddressed)
        : statusChip("SUCCESS", "all repaired")),
      el("td", { class: "n" }, ageOf(last, this.now()))),
    el("tr", { class: "dn-second-line" },
      el("td", { colspan: 4 }, error && this.filterLink(error, `${title}: ${message}`, filters, "dn-failure-error", false),
        el("div", { class: "dn-line dn-limits" }, notes.length > 0
          && el("span", { class: "dn-muted" }, notes.join(" · ")),
        unaddressed > 0 && !this.start.read_only && button(`Repair ${formatCount(unaddressed)}`,
          "Show what a repair of all that failed so would do",
          () => this.actions.begin("repair", {}, ids), { disabled: Boolean(this.start.forbidden) }))))];
  }

  /** @param {BoardDurations} durations */
  durationLine({ name, count, p50, p99, coarse }) {
    const format = coarse ? formatSeconds : formatDuration;
    return el("tr", {},
      el("td", { class: "dn-wide" }, this.filterLink(leafName(name), `Workflows named ${name}`,
        { name: [name], completed_after: this.model.get("window") })),
      el("td", { class: "n" }, formatCount(count)),
      el("td", { class: "n" }, p50 !== undefined && format(p50)),
      el("td", { class: "n" }, p99 !== undefined && format(p99)));
  }

  /**
   * @param {BoardQueue} queue
   * @param {number} most the largest number of enqueued workflows of a queue
   */
  queueLine(queue, most) {
    const { name, partition, enqueued, delayed, running, concurrency, oldest } = queue;
    const limits = [
      concurrency && `concurrency ${concurrency}`,
      queue.worker_concurrency && `${queue.worker_concurrency} per worker`,
      queue.rate_max && `${queue.rate_max} per ${queue.rate_period} s`,
    ].filter(Boolean).join(", ");
    const depth = el("i", { class: "dn-queue-bar", "aria-hidden": "true" });
    depth.style.width = `${(enqueued / most) * 100}%`;
    return el("tr", {},
      el("td", { class: "dn-wide" },
        this.filterLink(middleCut(name), `Workflows that wait or run on ${name}`,
          { queue_name: [name], status: UNFINISHED }),
        partition !== undefined && el("span", { class: "dn-muted" }, ` · ${partition}`),
        limits && el("div", { class: "dn-muted dn-limits" }, limits)),
      el("td", { class: "n dn-enqueued" }, formatCount(enqueued), depth,
        delayed > 0 && el("div", { class: "dn-muted dn-limits" }, `+ ${formatCount(delayed)} delayed`)),
      el("td", { class: "n" }, formatCount(running),
        concurrency && el("span", { class: "dn-muted" }, ` of ${formatCount(concurrency)}`)),
      el("td", { class: "n" }, oldest !== undefined
        && runningTime(oldest, this.now(), `since ${formatInstant(oldest)}`)));
  }

  close() {
    this.model.off("change:window", this.onWindow);
    this.actions.close();
    this.channel.close();
    this.polling.close();
    this.status.close();
    this.unfollowTheme();
  }
}

/** @param {readonly number[]} numbers */
function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}

/**
 * @param {string} text
 * @param {boolean} [isNumber]
 */
function heading(text, isNumber = false) {
  return el("th", { scope: "col", class: isNumber ? "n" : null }, text);
}

/**
 * @param {readonly Child[]} headings
 * @param {readonly Child[]} lines
 */
function table(headings, lines) {
  return el("table", { class: "dn-small-table" }, el("thead", {}, el("tr", {}, headings)),
    el("tbody", {}, lines));
}

/** @param {number} share */
function formatShare(share) {
  return share && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

/**
 * @param {number} ms
 * @param {number} length of the period, which decides between time and date
 */
function formatTick(ms, length) {
  const at = new Date(ms);
  if (length <= DAY_MS) return formatClock(at);
  return length > 7 * DAY_MS ? formatDate(at) : `${formatDate(at).slice(5)} ${formatClock(at)}`;
}

/** @param {RenderProps<BoardTraits>} props */
function render(props) {
  return mount(props, "dn-board", (model, root) => new Board(model, root));
}

export default { render };
