// One workflow in a page without a kernel, answered from what was recorded in the page.
import { render } from "./inspect.js";
import { contains } from "./step_table.js";
/** @import {Callback, InspectTraits, Key, Kind, Model, PictureView, Recorded} from "./types.js" */

/** @typedef {{kind: Kind, request: string} & Record<string, any>} Message */

const MOST_FOUND = 50;
const NOT_RECORDED = { kind: "error", type: "Not recorded",
  text: "This page does not contain that. Open the workflow in a notebook to see it." };

/** @implements {Model<InspectTraits>} */
class RecordedModel {
  /** @param {Recorded} recorded */
  constructor(recorded) {
    this.recorded = recorded;
    /** @type {InspectTraits} */
    this.traits = { _token: "", _start: recorded.start, workflow_id: recorded.workflow_id,
      live: false, _selected: [] };
    /** @type {Map<string, Callback[]>} */
    this.callbacks = new Map();
  }

  /**
   * @template {keyof InspectTraits} Name
   * @param {Name} name
   * @returns {InspectTraits[Name]}
   */
  get(name) {
    return this.traits[name];
  }

  /**
   * @template {keyof InspectTraits} Name
   * @param {Name} name
   * @param {InspectTraits[Name]} value
   */
  set(name, value) {
    this.traits[name] = value;
  }

  save_changes() {}

  /**
   * @param {string} event
   * @param {Callback} callback
   */
  on(event, callback) {
    this.callbacks.set(event, [...(this.callbacks.get(event) ?? []), callback]);
  }

  /**
   * @param {string} event
   * @param {Callback} callback
   */
  off(event, callback) {
    this.callbacks.set(event,
      (this.callbacks.get(event) ?? []).filter((other) => other !== callback));
  }

  /** @param {object} question */
  send(question) {
    const message = /** @type {Message} */ (question);
    const { kind, request } = message;
    const answer = { kind, request, ...(this.answer(message) ?? NOT_RECORDED) };
    setTimeout(() => {
      for (const callback of this.callbacks.get("msg:custom") ?? []) callback(answer);
    });
  }

  /**
   * @param {Message} message
   * @returns {object | undefined}
   */
  answer({ kind, view, key, text }) {
    switch (kind) {
      case "show": return { ...this.recorded.state, ...this.shown(view) };
      case "reveal": return this.revealed(key, view);
      case "node": return this.recorded.nodes[JSON.stringify(key)]
        ?? this.recorded.groups[JSON.stringify(key)];
      case "search": return this.search(text);
      case "list": return this.recorded.list;
      default: return undefined;
    }
  }

  /**
   * Of several expanded groups the last one is shown: each is recorded expanded by itself.
   * @param {PictureView} view
   */
  shown({ picture: kind, open, overview }) {
    const { pictures } = this.recorded;
    const map = pictures[JSON.stringify(["overview"])];
    if (map && overview !== false && !open.length) return { picture: map, open };
    const picture = pictures[JSON.stringify([kind, ...open.slice(-1)])]
      ?? pictures[JSON.stringify([kind])];
    return { picture, open };
  }

  /**
   * The picture that shows a node, with the groups that are expanded in it.
   * @param {Key} key
   * @param {PictureView} view
   */
  revealed(key, view) {
    const wanted = JSON.stringify(key);
    for (const [name, picture] of Object.entries(this.recorded.pictures)) {
      const [kind, ...open] = JSON.parse(name);
      const isShown = picture.nodes.some((node) => JSON.stringify(node.key) === wanted);
      if (kind === view.picture && isShown) return { picture, open };
    }
    return this.shown(view);
  }

  /** @param {string} text */
  search(text) {
    const found = this.recorded.list.rows.filter((node) => contains(node, text));
    return { found: found.slice(0, MOST_FOUND), count: found.length };
  }
}

const main = document.querySelector("main");
const recorded = document.getElementById("recorded");
if (main && recorded) {
  render({ model: new RecordedModel(JSON.parse(recorded.textContent ?? "")), el: main });
}
