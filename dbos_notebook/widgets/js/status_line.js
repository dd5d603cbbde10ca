// Shows the state of the data: when it was updated, whether the kernel is busy, and the last error.
import { button, el, iconButton, replace } from "./dom.js";
import { formatAge, formatDuration, formatInstant } from "./format.js";
import { KernelError } from "./kernel_channel.js";

export class StatusLine {
  /**
   * @param {() => unknown} retry reads the data again
   * @param {() => string | null} [override] replaces the time of the update where it is not null
   */
  constructor(retry, override = () => null) {
    this.retry = retry;
    this.override = override;
    this.clockOffset = 0; // of the kernel's clock from the browser's
    this.isBusy = false;
    this.isPersistent = false;
    this.isClosed = false;
    /** @type {number | undefined} */
    this.updatedAt = undefined;
    /** @type {number | undefined} */
    this.took = undefined;
    this.line = el("span", { class: "dn-state", role: "status" });
    this.banner = el("div", { class: "dn-banner", role: "alert", hidden: true });
  }

  /** The current time on the kernel's clock. */
  now() {
    return Date.now() + this.clockOffset;
  }

  /** An answer arrived: the error of an earlier question is out of date. */
  clearError() {
    if (!this.isPersistent) this.banner.hidden = true;
  }

  /**
   * An answer with the data that is shown arrived.
   * @param {{now: number, took?: number}} answer
   */
  updated({ now, took }) {
    this.clearError();
    this.clockOffset = now - Date.now();
    this.updatedAt = now;
    this.took = took;
    this.show();
  }

  /** @param {boolean} busy */
  setBusy(busy) {
    this.isBusy = busy;
    this.updatedAt ??= this.now();
    this.show();
  }

  show() {
    if (!this.updatedAt) return;
    const text = this.isBusy ? "kernel is busy …"
      : this.override() ?? `updated ${formatAge(this.updatedAt, this.now())}`;
    // A screen reader would read an unchanged text again.
    if (this.line.textContent !== text) this.line.textContent = text;
    const took = this.took === undefined ? "" : `, read in ${formatDuration(this.took)}`;
    this.line.title = `${formatInstant(this.updatedAt)}${took}`;
  }

  /** @param {KernelError} error */
  showError(error) {
    if (this.isPersistent && !error.persistent && !error.final) return;
    const retryable = !error.final && !error.persistent;
    replace(this.banner, el("b", {}, error.type), el("span", {}, error.message),
      retryable && button("Try again", "Read the data again", () => this.retry()),
      iconButton("×", "Close", () => this.closeBanner()));
    this.banner.hidden = false;
    this.isPersistent = error.persistent;
  }

  closeBanner() {
    this.banner.hidden = true;
    this.isPersistent = false;
  }

  /**
   * Return the answer; null if there is none any more, or if it is an error, which is shown.
   * @template T
   * @param {Promise<T | null>} answer
   * @returns {Promise<T | null>}
   */
  async showErrorsOf(answer) {
    try {
      const found = await answer;
      return this.isClosed ? null : found;
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      if (!this.isClosed) this.showError(error);
      return null;
    }
  }

  close() {
    this.isClosed = true;
  }
}
