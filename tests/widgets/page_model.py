"""A model of a view as a host has it, for a page without a notebook."""

from __future__ import annotations

MODEL = """
    class Model {
      constructor(traits) {
        Object.assign(this, { traits, heard: [], held: [], holding: window.holding, sent: [] });
      }
      get(name) { return this.traits[name]; }
      set(name, value) {
        this.traits[name] = value;
        this.tell(`change:${name}`);
      }
      save_changes() {}
      on(event, act) { this.heard.push([event, act]); }
      off(event, act) { this.heard = this.heard.filter(([e, a]) => e !== event || a !== act); }
      tell(event, ...told) {
        for (const [e, act] of [...this.heard]) if (e === event) act(...told);
      }
      async send(message) {
        this.sent.push(message);
        if (message.kind === this.failing) {
          setTimeout(() => this.tell("msg:custom", { kind: "error", type: "Failed", text: "failed",
            request: message.request }));
          return;
        }
        const answer = await window.answered(message);
        if (message.kind === this.holding) this.held.push(answer);
        else this.tell("msg:custom", answer);
      }
      release() {
        this.holding = null;
        for (const answer of this.held.splice(0)) this.tell("msg:custom", answer);
      }
    }
    const blob = new Blob([code], { type: "text/javascript" });
    const { default: view } = await import(URL.createObjectURL(blob));
    window.model = new Model(traits);
    window.close = view.render({ model: window.model,
      el: document.querySelector("#here") ?? document.body });
"""
