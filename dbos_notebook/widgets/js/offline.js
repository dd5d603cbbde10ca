// A view of one workflow in a page without a kernel: what was recorded answers for it.
import { render } from "./inspect.js";

class Recorded {
  constructor(recorded) {
    this.recorded = recorded;
    this.traits = { _start: recorded.start, workflow_id: recorded.workflow_id, live: false,
      _selected: [] };
    this.heard = new Map();
  }

  get(name) {
    return this.traits[name];
  }

  set(name, value) {
    this.traits[name] = value;
  }

  save_changes() {}

  on(event, act) {
    this.heard.set(event, [...(this.heard.get(event) ?? []), act]);
  }

  off(event, act) {
    this.heard.set(event, (this.heard.get(event) ?? []).filter((other) => other !== act));
  }

  send(message) {
    const answer = { kind: message.kind, request: message.request, ...this.answer(message) };
    setTimeout(() => (this.heard.get("msg:custom") ?? []).forEach((act) => act(answer)));
  }

  answer(message) {
    const answers = {
      show: () => ({ ...this.recorded.state, ...this.shown(message.view) }),
      reveal: () => this.revealed(message),
      node: () => this.recorded.nodes[JSON.stringify(message.key)] ?? this.group(message.key),
      search: () => this.search(message.text),
      list: () => this.recorded.list,
    };
    const told = answers[message.kind]?.();
    return told ?? { kind: "error", type: "Page", text: "This page has no more of it: it needs a kernel." };
  }

  // Of opened groups the last one counts: each is recorded opened by itself.
  picture(kind, open) {
    const { pictures } = this.recorded;
    return pictures[JSON.stringify([kind, ...open])] ?? pictures[JSON.stringify([kind])];
  }

  shown(view) {
    return { picture: this.picture(view.picture, view.open.slice(-1)), open: view.open };
  }

  revealed({ key, view }) {
    const wanted = JSON.stringify(key);
    for (const [name, picture] of Object.entries(this.recorded.pictures)) {
      const [kind, ...open] = JSON.parse(name);
      if (kind === view.picture && picture.nodes.some((node) => JSON.stringify(node.key) === wanted)) {
        return { picture, open };
      }
    }
    return { picture: this.picture(view.picture, view.open.slice(-1)), open: view.open };
  }

  group(key) {
    return this.recorded.groups[JSON.stringify(key)];
  }

  search(text) {
    const wanted = text.toLowerCase();
    const found = this.recorded.list.rows.filter((node) => [node.name, node.workflow_id, node.error,
      node.error_message].some((part) => String(part ?? "").toLowerCase().includes(wanted)));
    return { found: found.slice(0, 50), count: found.length };
  }
}

const recorded = JSON.parse(document.getElementById("recorded").textContent);
render({ model: new Recorded(recorded), el: document.querySelector("main") });
