// Questions to the kernel and their answers. One of a kind is under way at a time; of those asked
// meanwhile only the latest is sent, so that typing fast floods nothing.

const SLOW = 1200;
const KERNEL_ENDED = { type: "KernelEnded", final: true, text: "The kernel that made this view has ended. "
  + "What stands here was read before; run the cell again for more." };

export class Link {
  constructor(model, state) {
    this.model = model;
    this.onBusy = (busy) => state.busy(busy);
    this.onEnded = (failure) => state.failed(failure);
    this.number = 0;
    this.waiting = new Map();
    this.underWay = new Map();
    this.next = new Map();
    this.receive = (message) => this.answered(message);
    model.on("msg:custom", this.receive);
    // Hosts of Jupyter's own tell so when the kernel restarts; nobody would answer any more.
    this.end = () => this.ended();
    model.on("comm_live_update", this.end);
  }

  // Resolves with the answer; with null where a later question of the same lane took its place.
  ask(kind, question = {}, lane = kind) {
    return new Promise((resolve, reject) => {
      const asked = { kind, question, lane, resolve, reject };
      if (this.dead) {
        reject(new Failure(KERNEL_ENDED));
      } else if (!this.underWay.has(lane)) {
        this.send(asked);
      } else {
        this.next.get(lane)?.resolve(null);
        this.next.set(lane, asked);
      }
    });
  }

  idle(lane) {
    return !this.dead && !this.underWay.has(lane);
  }

  ended() {
    this.dead = true;
    const left = [...this.waiting.values(), ...this.next.values()];
    this.waiting.clear();
    this.next.clear();
    this.onBusy(false);
    for (const asked of left) {
      clearTimeout(asked.timer);
      asked.reject(new Failure(KERNEL_ENDED));
    }
    this.onEnded(new Failure(KERNEL_ENDED));
  }

  send(asked) {
    // Apart from those of another view of the same model.
    const request = `${this.prefix()}${++this.number}`;
    asked.request = request;
    this.waiting.set(request, asked);
    this.underWay.set(asked.lane, request);
    asked.timer = setTimeout(() => this.onBusy(true), SLOW);
    try {
      this.model.send({ ...asked.question, kind: asked.kind, request });
    } catch {
      this.ended(); // a kernel that was shut down takes nothing, and tells no host
    }
  }

  prefix() {
    this.name ??= `${Math.random().toString(36).slice(2, 8)}-`;
    return this.name;
  }

  answered(message) {
    const asked = this.waiting.get(message.request);
    if (!asked) return;
    this.waiting.delete(message.request);
    this.underWay.delete(asked.lane);
    clearTimeout(asked.timer);
    this.onBusy(false);
    const following = this.next.get(asked.lane);
    this.next.delete(asked.lane);
    if (following) this.send(following);
    // What was to be written may have been, in part: that is not forgotten with the next answer.
    const lasting = asked.kind === "apply";
    if (message.kind === "error") asked.reject(new Failure({ ...message, lasting }));
    // What was asked anew meanwhile is no answer any more.
    else asked.resolve(following ? null : message);
  }

  close() {
    this.model.off("msg:custom", this.receive);
    this.model.off("comm_live_update", this.end);
    for (const asked of this.waiting.values()) clearTimeout(asked.timer);
  }
}

export class Failure extends Error {
  constructor(message) {
    super(message.text);
    this.type = message.type;
    this.final = message.final; // to ask again would not help
    this.lasting = message.lasting; // stays until it is closed
  }
}
