// What is told of the asking itself: when the answer that is shown was read, that the kernel is busy,
// and what went wrong.
import { el, replace } from "./dom.js";
import { ago, exact, span } from "./format.js";

export class State {
  // retry(): asks again. said(): what stands there instead of when it was read; null: nothing else.
  constructor(retry, said = () => null) {
    this.retry = retry;
    this.said = said;
    this.skew = 0; // of this clock against the kernel's
    this.line = el("span", { class: "dn-state", role: "status" });
    this.banner = el("div", { class: "dn-banner", role: "alert", hidden: true });
  }

  now() {
    return Date.now() + this.skew;
  }

  answered() {
    if (!this.lasting) this.banner.hidden = true;
  }

  // An answer came with what is shown.
  read(answer) {
    this.answered();
    this.skew = answer.now - Date.now();
    this.at = answer.now;
    this.took = answer.took;
    this.show();
  }

  busy(busy) {
    this.isBusy = busy;
    this.at ??= this.now();
    this.show();
  }

  show() {
    if (!this.at) return;
    const text = this.isBusy ? "the kernel is busy …"
      : this.said() ?? `read ${ago(this.at, this.now())}`;
    if (this.line.textContent !== text) this.line.textContent = text;
    this.line.title = this.took === undefined ? exact(this.at)
      : `${exact(this.at)}, in ${span(this.took)}`;
  }

  failed(error) {
    if (this.lasting && !error.lasting && !error.final) return;
    const button = (label, title, act) => el("button", { type: "button", class: "dn-button", title,
      "aria-label": title, on: { click: act } }, label);
    replace(this.banner, el("b", {}, error.type ?? "Error"), el("span", {}, error.message),
      !error.final && !error.lasting && button("Try again", "Ask again now", () => this.retry()),
      button("×", "Close", () => this.closeBanner()));
    this.banner.hidden = false;
    this.lasting = error.lasting;
  }

  closeBanner() {
    this.banner.hidden = true;
    this.lasting = false;
  }

  // The answer; null where there is none any more, or where it went wrong, which is then shown.
  async try(answer) {
    try {
      const found = await answer;
      return this.closed ? null : found;
    } catch (error) {
      if (!this.closed) this.failed(error);
      return null;
    }
  }

  close() {
    this.closed = true;
  }
}
