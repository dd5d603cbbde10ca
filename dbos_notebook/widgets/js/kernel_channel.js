// Sends questions to the kernel and matches the answers. One question of a lane is in flight at a
// time; of those asked meanwhile only the latest is sent, so that fast typing does not flood the
// kernel.
/** @import {Answer, ErrorAnswer, Kind, Model, Question} from "./types.js" */
/** @import {StatusLine} from "./status_line.js" */

/**
 * @typedef {object} Pending
 * @property {Kind} kind
 * @property {object} question
 * @property {string} lane
 * @property {(answer: any) => void} resolve
 * @property {(error: KernelError) => void} reject
 * @property {number} [timer]
 * @property {number} [silence]
 */

const BUSY_AFTER_MS = 1200;
/** After this it is said in a banner: a server that was stopped closes nothing that a view notices. */
const SILENT_AFTER_MS = 20_000;
const SILENT = "The kernel has not answered for 20 s: it runs something else, or it or its server has stopped. "
  + "The data shown was read before that.";
const STOPPED = "The kernel of this view has stopped. The data shown was read before that; run the cell "
  + "again, or reload the page of a dashboard, to update it.";

export class KernelError extends Error {
  /**
   * @param {string} type
   * @param {string} text
   * @param {{final?: boolean, persistent?: boolean}} [options] final: asking again would not help;
   *   persistent: shown until it is closed
   */
  constructor(type, text, { final = false, persistent = false } = {}) {
    super(text);
    this.type = type;
    this.final = final;
    this.persistent = persistent;
  }
}

export class KernelChannel {
  /**
   * @param {Model<any>} model
   * @param {StatusLine} status shows that the kernel is busy or has stopped
   */
  constructor(model, status) {
    this.model = model;
    this.status = status;
    this.stopped = false;
    this.sent = 0;
    // Distinguishes this view's questions from those of another view of the same model.
    this.prefix = Math.random().toString(36).slice(2, 8);
    /** @type {Map<string, Pending>} by request */
    this.inFlight = new Map();
    /** @type {Set<string>} */
    this.busyLanes = new Set();
    /** @type {Map<string, Pending>} by lane */
    this.queued = new Map();
    this.onMessage = (/** @type {any} */ message) => this.receive(message);
    // Jupyter's own hosts fire this when the kernel restarts: no answer will come any more.
    this.onKernelRestart = () => this.stop();
    model.on("msg:custom", this.onMessage);
    model.on("comm_live_update", this.onKernelRestart);
  }

  /**
   * Resolve with the answer, or with null if a later question of the same lane replaced this one.
   * @template {Kind} K
   * @param {K} kind
   * @param {Question<K>} question
   * @param {string} [lane]
   * @returns {Promise<Answer<K> | null>}
   */
  ask(kind, question, lane = kind) {
    return new Promise((resolve, reject) => {
      const pending = { kind, question, lane, resolve, reject };
      if (this.stopped) {
        reject(kernelStopped());
      } else if (!this.busyLanes.has(lane)) {
        this.send(pending);
      } else {
        this.queued.get(lane)?.resolve(null);
        this.queued.set(lane, pending);
      }
    });
  }

  /** @param {string} lane */
  isIdle(lane) {
    return !this.stopped && !this.busyLanes.has(lane);
  }

  /** @param {Pending} pending */
  send(pending) {
    const request = `${this.prefix}-${this.sent += 1}`;
    this.inFlight.set(request, pending);
    this.busyLanes.add(pending.lane);
    pending.timer = setTimeout(() => this.status.setBusy(true), BUSY_AFTER_MS);
    pending.silence = setTimeout(() => this.status.showError(new KernelError("No answer", SILENT)),
      SILENT_AFTER_MS);
    try {
      this.model.send({ ...pending.question, kind: pending.kind, request });
    } catch {
      this.stop(); // the kernel was shut down, which fires no event
    }
  }

  /** @param {ErrorAnswer | {kind: Kind, request: string}} message */
  receive(message) {
    const pending = this.inFlight.get(message.request ?? "");
    if (!pending) return;
    this.inFlight.delete(message.request ?? "");
    this.busyLanes.delete(pending.lane);
    clearTimers(pending);
    this.status.setBusy(false);
    const next = this.queued.get(pending.lane);
    this.queued.delete(pending.lane);
    if (next) this.send(next);
    if (message.kind === "error") {
      // A part may have been written: the error must not disappear with the next answer.
      const persistent = pending.kind === "apply";
      pending.reject(new KernelError(message.type, message.text, { persistent }));
    } else {
      // The question has been asked again since: this answer is out of date.
      pending.resolve(next ? null : message);
    }
  }

  stop() {
    this.stopped = true;
    const unanswered = [...this.inFlight.values(), ...this.queued.values()];
    this.inFlight.clear();
    this.queued.clear();
    this.status.setBusy(false);
    for (const pending of unanswered) {
      clearTimers(pending);
      pending.reject(kernelStopped());
    }
    this.status.showError(kernelStopped());
  }

  close() {
    this.model.off("msg:custom", this.onMessage);
    this.model.off("comm_live_update", this.onKernelRestart);
    for (const pending of this.inFlight.values()) clearTimers(pending);
  }
}

/** @param {Pending} pending */
function clearTimers({ timer, silence }) {
  clearTimeout(timer);
  clearTimeout(silence);
}

function kernelStopped() {
  return new KernelError("Kernel stopped", STOPPED, { final: true });
}
