// Keeps a view up to date: its clocks always, its data while "Live" is on. Polling pauses while the
// view is not visible, and stops if nobody has touched it for half an hour.
import { el } from "./dom.js";
import { formatAge, formatSince } from "./format.js";
/** @import {LiveTraits, Model} from "./types.js" */

/**
 * @typedef {object} PollingOptions
 * @property {() => number} now the current time on the kernel's clock
 * @property {number} clock milliseconds between updates of the times that are shown
 * @property {() => number} interval milliseconds to the next poll
 * @property {() => boolean} isReady whether a poll can start now
 * @property {() => unknown} poll
 * @property {() => boolean} [isFinished] whether nothing can change any more
 * @property {() => void} onChange the switch or the clock has changed
 */

const IDLE_LIMIT_MS = 30 * 60 * 1000;
const SOON_MS = 50;

export class Polling {
  /**
   * @param {HTMLElement} root
   * @param {Model<LiveTraits>} model
   * @param {PollingOptions} options
   */
  constructor(root, model, options) {
    this.root = root;
    this.model = model;
    this.options = options;
    /** @type {Map<string, number>} */
    this.timers = new Map();
    this.isClosed = false;
    this.isInViewport = true;
    this.touchedAt = Date.now();
    this.button = el("button", { type: "button", class: "dn-live", role: "switch",
      on: { click: () => this.set(!this.isOn()) } }, el("i", { "aria-hidden": "true" }), "Live");
    for (const event of ["pointerdown", "keydown", "wheel"]) {
      root.addEventListener(event, () => this.touch(), { passive: true });
    }
    this.observer = new IntersectionObserver((entries) => {
      this.isInViewport = entries.at(-1)?.isIntersecting ?? true;
    });
    this.observer.observe(root);
    this.onSwitched = () => {
      this.touch();
      this.showButton();
      options.onChange();
      this.schedule(SOON_MS);
    };
    model.on("change:live", this.onSwitched);
    this.showButton();
    this.scheduleClock();
    this.schedule();
  }

  isOn() {
    return this.model.get("live");
  }

  /** @param {boolean} on */
  set(on) {
    this.model.set("live", on);
    this.model.save_changes();
  }

  showButton() {
    this.button.setAttribute("aria-checked", String(this.isOn()));
  }

  /** Somebody uses the view. */
  touch() {
    this.touchedAt = Date.now();
  }

  isVisible() {
    return this.isInViewport && document.visibilityState === "visible" && this.root.isConnected;
  }

  /** @param {number} [ms] */
  schedule(ms = this.options.interval()) {
    this.setTimer("poll", ms, async () => {
      const { isFinished = () => false, isReady, poll } = this.options;
      if (!this.isOn() || isFinished()) return;
      if (Date.now() - this.touchedAt > IDLE_LIMIT_MS) {
        this.set(false);
        return;
      }
      if (this.isVisible() && isReady()) await poll();
      this.schedule();
    });
  }

  scheduleClock() {
    this.setTimer("clock", this.options.clock, () => {
      if (this.isVisible()) this.updateTimes();
      this.scheduleClock();
    });
  }

  /**
   * Call back later; a timer replaces an earlier one with the same name.
   * @param {string} name
   * @param {number} ms
   * @param {() => unknown} callback
   */
  setTimer(name, ms, callback) {
    clearTimeout(this.timers.get(name));
    if (!this.isClosed) this.timers.set(name, setTimeout(callback, ms));
  }

  updateTimes() {
    const now = this.options.now();
    for (const time of this.elements("time[data-ms]")) {
      const text = formatAge(Number(time.dataset.ms), now);
      if (time.textContent !== text) time.textContent = text;
    }
    for (const running of this.elements("[data-since]")) {
      running.textContent = formatSince(Number(running.dataset.since), now);
    }
    this.options.onChange();
  }

  /**
   * @param {string} selector
   * @returns {NodeListOf<HTMLElement>}
   */
  elements(selector) {
    return this.root.querySelectorAll(selector);
  }

  close() {
    this.isClosed = true;
    this.model.off("change:live", this.onSwitched);
    this.observer.disconnect();
    for (const timer of this.timers.values()) clearTimeout(timer);
  }
}
