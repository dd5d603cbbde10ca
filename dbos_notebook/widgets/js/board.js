// The board: what waits and runs, what ended in a window of time, and what failed.
import { copy, el, followTheme, put, replace, svg } from "./dom.js";
import { place } from "./fallback.js";
import { chip, count, exact, span, when } from "./format.js";
import { Link } from "./kernel_channel.js";
import { Live } from "./polling.js";
import { State } from "./status_line.js";

const ASKING = 5000;
const WIDE = 720;
const HIGH = 96;
// From the bottom up; a failure is at the foot, where one in a thousand is still seen.
const ENDED = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "CANCELLED", "SUCCESS"];
const ACTIVE = ["PENDING", "ENQUEUED", "DELAYED"];
const WORDS = { PENDING: "running", ENQUEUED: "enqueued", DELAYED: "delayed",
  SUCCESS: "succeeded", ERROR: "failed", CANCELLED: "cancelled",
  MAX_RECOVERY_ATTEMPTS_EXCEEDED: "recovery given up" };

class Board {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.start = model.get("_start");
    this.state = new State(() => this.load());
    this.link = new Link(model, this.state);
    this.live = new Live(root, model, {
      now: () => this.now(),
      clock: ASKING,
      wait: () => ASKING,
      ready: () => this.link.idle("board"),
      ask: () => this.load(this.stamp),
      shown: () => this.state.show(),
    });
    this.live.button.title = "Ask again every five seconds while this is seen";
    this.build();
    this.window = () => {
      this.showWindows();
      this.load();
    };
    model.on("change:window", this.window);
    this.unfollow = followTheme(root);
    this.load();
  }

  now() {
    return this.state.now();
  }

  build() {
    this.windows = el("div", { class: "dn-segments", role: "group", "aria-label": "Window" });
    this.tiles = el("div", { class: "dn-tiles" });
    this.chart = el("figure", { class: "dn-chart" });
    this.failures = el("section", { "aria-label": "Failures" });
    this.queues = el("section", { "aria-label": "Queues" });
    put(this.root,
      el("div", { class: "dn-top" }, el("b", { class: "dn-title", title: this.start.location },
        this.start.location), el("span", { class: "dn-space" }), this.windows, this.live.button,
      el("button", { type: "button", class: "dn-button", on: { click: () => this.load() } },
        "Refresh")),
      this.state.banner, this.tiles, this.chart,
      el("div", { class: "dn-halves" }, this.failures, this.queues), this.state.line);
    this.showWindows();
  }

  showWindows() {
    const current = this.model.get("window");
    replace(this.windows, this.start.windows.map((name) => el("button", { type: "button",
      "aria-pressed": String(name === current), title: `What ended in the last ${name}`,
      on: { click: () => this.choose(name) } }, name)));
  }

  choose(window) {
    this.model.set("window", window);
    this.model.save_changes();
  }

  // --- asking --------------------------------------------------------------------------------

  async load(stamp = null) {
    const answer = await this.state.try(this.link.ask("board", { stamp }));
    if (!answer) return;
    this.state.read(answer);
    if (answer.same) return;
    this.stamp = answer.stamp;
    this.found = answer;
    this.show();
  }

  // --- showing -------------------------------------------------------------------------------

  show() {
    const { active, series } = this.found;
    const ended = Object.fromEntries(
      Object.entries(series).map(([status, bars]) => [status, bars.reduce((a, b) => a + b, 0)]));
    const all = Object.values(ended).reduce((a, b) => a + b, 0);
    const bad = (ended.ERROR ?? 0) + (ended.MAX_RECOVERY_ATTEMPTS_EXCEEDED ?? 0);
    const tile = (status, number, note) => el("div", { class: "dn-tile", "data-none": !number },
      chip(status), el("b", {}, count(number)), el("span", { class: "dn-quiet" }, note));
    replace(this.tiles,
      ACTIVE.map((status) => tile(status, active[status] ?? 0, "now")),
      el("i", { class: "dn-rule", "aria-hidden": "true" }),
      ["SUCCESS", "ERROR", "CANCELLED"].map((status) => tile(status, ended[status] ?? 0,
        status === "ERROR" && all ? `${share(bad / all)} of ${count(all)}` : this.model.get("window"))),
      ended.MAX_RECOVERY_ATTEMPTS_EXCEEDED
        ? tile("MAX_RECOVERY_ATTEMPTS_EXCEEDED", ended.MAX_RECOVERY_ATTEMPTS_EXCEEDED, "given up")
        : null);
    this.showChart(ended, all);
    this.showFailures();
    this.showQueues();
  }

  showChart(ended, all) {
    const { begin, width, bars: number, series } = this.found;
    const places = [...Array(number).keys()];
    const known = [...ENDED.filter((status) => series[status]),
      ...Object.keys(series).filter((status) => !ENDED.includes(status))];
    const tops = places.map((place) => known.reduce((sum, one) => sum + series[one][place], 0));
    const most = Math.max(1, ...tops);
    const step = WIDE / places.length;
    const said = known.map((one) => `${count(ended[one])} ${word(one)}`).join(", ");
    const bars = places.map((place) => {
      let y = HIGH;
      const at = begin + place * width;
      const parts = known.filter((one) => series[one][place]).map((one) => {
        // However few: what is there is seen.
        const height = Math.max(2, (series[one][place] / most) * (HIGH - 2));
        y -= height;
        return svg("rect", { x: place * step + 1, y, width: step - 2, height, "data-status": one });
      });
      const told = known.filter((one) => series[one][place])
        .map((one) => `${count(series[one][place])} ${word(one)}`).join(", ");
      const hover = svg("rect", { x: place * step, y: 0, width: step, height: HIGH, class: "dn-hover" },
        svg("title", {}, `${exact(at).replace(/\.\d+ /, " ")}, ${span(width).replace(".0", "")}: ${told || "nothing ended"}`));
      return svg("g", {}, parts, hover);
    });
    const end = begin + places.length * width;
    const marks = [0, 0.25, 0.5, 0.75, 1].map((part) => {
      const at = begin + part * (end - begin);
      return el("span", {}, part === 1 ? "now" : label(at, end - begin));
    });
    replace(this.chart,
      el("figcaption", {}, el("b", {}, "Ended workflows"), el("span", { class: "dn-quiet" },
        all ? ` per ${span(width).replace(".0", "")}, at most ${count(most)}` : " — none in this window")),
      svg("svg", { viewBox: `0 -1 ${WIDE} ${HIGH + 1}`, preserveAspectRatio: "none", role: "img",
        "aria-label": `Ended workflows over time: ${said || "none"}` }, bars),
      el("div", { class: "dn-axis", "aria-hidden": "true" }, marks));
  }

  showFailures() {
    const { failures, more_failures: more, cut } = this.found;
    const now = this.now();
    replace(this.failures, el("h4", {}, "Failures"),
      failures.length ? el("table", { class: "dn-small-table" },
        el("thead", {}, el("tr", {}, heading("workflow and error"), heading("count", true),
          heading("last", true))),
        el("tbody", {}, failures.map((row) => el("tr", {},
          el("td", {}, el("span", { class: "dn-name" }, row.name), " ",
            el("button", { type: "button", class: "dn-link", title: "Copy the ID of the newest",
              on: { click: (event) => copied(event.currentTarget, row.id) } }, row.id),
            el("div", { class: "dn-error", title: row.message },
              row.type && el("b", {}, row.type.split(".").at(-1)),
              row.messages > 1 && row.message ? ", for example" : "",
              row.message && (row.type ? `: ${row.message}` : row.message))),
          el("td", { class: "n" }, count(row.count)),
          el("td", { class: "n" }, when(row.last, now))))))
        : el("p", { class: "dn-note" }, "Nothing failed in this window."),
      more ? el("p", { class: "dn-note" }, `… and ${count(more)} more kinds: .failures`) : null,
      cut ? el("p", { class: "dn-note" }, "Of the newest 500 that failed.") : null);
  }

  showQueues() {
    const { queues, more_queues: more } = this.found;
    const most = Math.max(1, ...queues.map((row) => row.enqueued));
    replace(this.queues, el("h4", {}, "Queues"),
      queues.length ? el("table", { class: "dn-small-table" },
        el("thead", {}, el("tr", {}, heading("queue"), heading("enqueued", true),
          heading("running", true), heading("oldest waits", true))),
        el("tbody", {}, queues.map((row) => {
          const bar = el("i", { class: "dn-depth", "aria-hidden": "true" });
          bar.style.width = `${(row.enqueued / most) * 100}%`;
          const limits = [row.concurrency && `${row.concurrency} at once`,
            row.worker_concurrency && `${row.worker_concurrency} on one executor`,
            row.rate_max && `${row.rate_max} per ${row.rate_period} s`].filter(Boolean).join(", ");
          return el("tr", {},
            el("td", {}, el("span", { class: "dn-name" }, row.name),
              row.partition === undefined ? null : el("span", { class: "dn-quiet" }, ` · ${row.partition}`),
              limits ? el("div", { class: "dn-quiet dn-limits" }, limits) : null),
            el("td", { class: "n dn-deep" }, count(row.enqueued), bar,
              row.delayed ? el("div", { class: "dn-quiet dn-limits" }, `+ ${count(row.delayed)} delayed`) : null),
            el("td", { class: "n" }, count(row.running),
              row.concurrency ? el("span", { class: "dn-quiet" }, ` of ${count(row.concurrency)}`) : null),
            el("td", { class: "n" }, row.oldest === undefined ? "" : el("span", {
              "data-since": row.oldest, title: `since ${exact(row.oldest)}` },
              span(this.now() - row.oldest))));
        })))
        : el("p", { class: "dn-note" }, "No queue is registered or holds work."),
      more ? el("p", { class: "dn-note" }, `… and ${count(more)} more: .queues`) : null);
  }

  close() {
    this.model.off("change:window", this.window);
    this.link.close();
    this.live.close();
    this.state.close();
    this.unfollow();
  }
}

function word(status) {
  return Object.hasOwn(WORDS, status) ? WORDS[status] : status;
}

function heading(text, number = false) {
  return el("th", { scope: "col", class: number ? "n" : null }, text);
}

function share(part) {
  return part && part < 0.001 ? "< 0.1 %" : `${(100 * part).toFixed(part < 0.1 ? 1 : 0)} %`;
}

function label(ms, window) {
  const at = new Date(ms);
  const two = (number) => String(number).padStart(2, "0");
  const time = `${two(at.getHours())}:${two(at.getMinutes())}`;
  if (window <= 86400000) return time;
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return window > 7 * 86400000 ? day : `${day.slice(5)} ${time}`;
}

async function copied(button, text) {
  const done = await copy(text);
  button.title = done ? "Copied" : "Copying is not allowed here: mark it and copy it";
}

function render({ model, el: host }) {
  const root = el("div", { class: "dn-view dn-board", "data-lm-suppress-shortcuts": "true" });
  const end = place(root, host, model);
  const board = new Board(model, root);
  return () => {
    end();
    board.close();
  };
}

export default { render };
