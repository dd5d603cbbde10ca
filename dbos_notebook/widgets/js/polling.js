// What a view does by itself: its clocks, and asking again where that is switched on. It stops where
// nobody sees the view, and where nobody has touched it for half an hour.
import { el } from "./dom.js";
import { ago, span } from "./format.js";

const UNTOUCHED = 30 * 60 * 1000;
const SOON = 50;

export class Live {
  // now(): the kernel's time. ask(): asks once more. wait(): how long to the next. ready(): whether
  // there is something to ask now. ended(): whether there will never be. shown(): the switch, or
  // the clock, has changed. clock: how often times are written anew.
  constructor(root, model, { now, ask, wait, ready, ended = () => false, shown, clock }) {
    Object.assign(this, { root, model, now, ask, wait, ready, ended, shown });
    this.timers = new Map();
    this.seen = true;
    this.touched = Date.now();
    this.button = el("button", { type: "button", class: "dn-live", role: "switch",
      on: { click: () => this.set(!this.on()) } }, el("i", { "aria-hidden": "true" }), "Live");
    for (const event of ["pointerdown", "keydown", "wheel"]) {
      root.addEventListener(event, () => this.touch(), { passive: true });
    }
    this.sight = new IntersectionObserver((entries) => (this.seen = entries.at(-1).isIntersecting));
    this.sight.observe(root);
    this.switched = () => {
      this.touch();
      this.showButton();
      this.shown();
      this.again(SOON);
    };
    model.on("change:live", this.switched);
    this.showButton();
    const tick = () => {
      if (this.isSeen()) this.showTimes();
      this.later("clock", clock, tick);
    };
    this.later("clock", clock, tick);
    this.again();
  }

  on() {
    return this.model.get("live");
  }

  set(on) {
    this.model.set("live", on);
    this.model.save_changes();
  }

  showButton() {
    this.button.setAttribute("aria-checked", String(this.on()));
  }

  touch() {
    this.touched = Date.now();
  }

  isSeen() {
    return this.seen && document.visibilityState === "visible" && this.root.isConnected;
  }

  // Ask again after a while: the view's own, or the given one.
  again(ms = this.wait()) {
    this.later("asking", ms, async () => {
      if (!this.on() || this.ended()) return;
      if (Date.now() - this.touched > UNTOUCHED) {
        this.set(false);
        return;
      }
      if (this.isSeen() && this.ready()) await this.ask();
      this.again();
    });
  }

  // One timer of each name at a time.
  later(name, ms, act) {
    clearTimeout(this.timers.get(name));
    if (!this.closed) this.timers.set(name, setTimeout(act, ms));
  }

  showTimes() {
    const now = this.now();
    for (const time of this.root.querySelectorAll("time[data-ms]")) {
      const text = ago(Number(time.dataset.ms), now);
      if (time.textContent !== text) time.textContent = text;
    }
    for (const running of this.root.querySelectorAll("[data-since]")) {
      running.textContent = span(now - Number(running.dataset.since));
    }
    this.shown();
  }

  close() {
    this.closed = true;
    this.model.off("change:live", this.switched);
    this.sight.disconnect();
    for (const timer of this.timers.values()) clearTimeout(timer);
  }
}
