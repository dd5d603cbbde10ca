// Questions to the kernel and their answers. One of a kind is under way at a time; of those asked
// meanwhile only the latest is sent, so that typing fast floods nothing.

const SLOW = 1200;

export class Link {
  constructor(model, onBusy) {
    this.model = model;
    this.onBusy = onBusy;
    this.number = 0;
    this.waiting = new Map();
    this.underWay = new Map();
    this.next = new Map();
    this.receive = (message) => this.answered(message);
    model.on("msg:custom", this.receive);
  }

  // Resolves with the answer; with null where a later question of the same lane took its place.
  ask(kind, question = {}, lane = kind) {
    return new Promise((resolve, reject) => {
      const asked = { kind, question, lane, resolve, reject };
      if (!this.underWay.has(lane)) {
        this.send(asked);
        return;
      }
      this.next.get(lane)?.resolve(null);
      this.next.set(lane, asked);
    });
  }

  idle(lane) {
    return !this.underWay.has(lane);
  }

  send(asked) {
    // Apart from those of another view of the same model.
    const request = `${this.prefix()}${++this.number}`;
    asked.request = request;
    this.waiting.set(request, asked);
    this.underWay.set(asked.lane, request);
    asked.timer = setTimeout(() => this.onBusy(true), SLOW);
    this.model.send({ ...asked.question, kind: asked.kind, request });
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
    if (message.kind === "error") asked.reject(new Failure(message));
    // What was asked anew meanwhile is no answer any more.
    else asked.resolve(following ? null : message);
  }

  close() {
    this.model.off("msg:custom", this.receive);
    for (const asked of this.waiting.values()) clearTimeout(asked.timer);
  }
}

export class Failure extends Error {
  constructor(message) {
    super(message.text);
    this.type = message.type;
  }
}
