// Cancel, resume, fork, repair: buttons that are on where DBOS would act, the plan of a click, one
// confirmation, the receipt.
import { copy, el, onEntered, put, replace } from "./dom.js";
import { count, statusIcon } from "./format.js";

const NAMES = ["cancel", "resume", "fork", "repair"];
const TITLES = {
  cancel: "Take it off its queue, or stop it at its next step",
  resume: "Go on after its last recorded step",
  fork: "Start a new run that copies the steps before one, and runs from there",
  repair: "Fork it together with the failed children that made it fail",
};
const STEPS = ["failed", "first", "last"];
const OPTIONS = {
  cancel: [["cancel_children", "children too", "tick"]],
  resume: [["queue_name", "queue", "queues"]],
  fork: [["start_step", "from step", "steps"], ["application_version", "version", "versions"],
    ["queue_name", "queue", "queues"]],
  repair: [["application_version", "version", "versions"], ["queue_name", "queue", "queues"]],
};
const OUTCOMES = { do: "SUCCESS", done: "SUCCESS", unchanged: "CANCELLED", refused: "ERROR",
  failed: "ERROR", not_found: "ERROR", unknown: "MAX_RECOVERY_ATTEMPTS_EXCEEDED" };

export class Actions {
  // ask(kind, question) → answer or null; done(receipt) after something was written;
  // find(id) shows a workflow, where there is a place for that.
  constructor(forbidden, ask, done, find) {
    // In lanes of its own: another's buttons beside these must not take their answers.
    this.ask = (kind, question) => ask(kind, question, `${kind} ${this.lists}`);
    this.done = done;
    this.find = find;
    this.forbidden = forbidden;
    this.ids = [];
    this.bar = el("span", { class: "dn-actions", role: "group", "aria-label": "Actions" });
    this.panel = el("div", { class: "dn-plan", hidden: true, role: "group", "aria-live": "polite" });
    this.lists = `dn-${Math.random().toString(36).slice(2, 9)}`;
    this.showButtons(null);
  }

  // The workflows that the buttons are about.
  async about(ids, statuses = "") {
    const known = ids.join("\n") + statuses;
    const same = known === this.known;
    this.known = known;
    this.ids = ids;
    if (same) return;
    if (!ids.length) {
      this.close();
      this.showButtons(null);
      return;
    }
    if (this.forbidden) return;
    const answer = await this.ask("possible", { ids });
    if (answer) this.showButtons(answer.possible);
    // What was not answered is asked again.
    else if (this.known === known) this.known = null;
  }

  showButtons(possible) {
    replace(this.bar, NAMES.map((name) => {
      const found = possible?.[name];
      const many = this.ids.length > 1 && found?.count ? ` ${count(found.count)}` : "";
      const why = this.forbidden ?? found?.why;
      return el("button", {
        type: "button",
        class: "dn-button",
        title: found?.count ? TITLES[name] : (why || TITLES[name]),
        disabled: !found?.count,
        on: { click: () => this.begin(name) },
      }, `${name[0].toUpperCase()}${name.slice(1)}${many}`);
    }));
  }

  begin(name, options = {}) {
    this.action = name;
    this.options = options;
    this.pressed = this.panel.getRootNode().activeElement;
    // Of this click alone: whatever is sent twice is done once.
    const random = crypto.getRandomValues(new Uint8Array(6));
    this.key = `click-${[...random].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
    return this.plan();
  }

  async plan() {
    // Only a plan that is seen is confirmed: neither the one before, nor one that is under way.
    if (this.confirm) this.confirm.disabled = true;
    const turn = this.turn = (this.turn ?? 0) + 1;
    const asked = { action: this.action, ids: this.ids, options: this.options, key: this.key };
    const answer = await this.ask("plan", asked);
    if (!answer) return;
    this.targets ??= await this.ask("targets", {});
    if (turn !== this.turn) return;
    const { counts } = answer;
    const confirm = el("button", { type: "button", class: "dn-button dn-confirm",
      disabled: !counts.do, on: { click: () => this.apply(confirm, answer.key) } },
      `${this.title()} ${count(counts.do)} ${counts.do === 1 ? "workflow" : "workflows"}`);
    this.confirm = confirm;
    const code = el("code", { class: "dn-quiet" }, answer.code.slice(0, 300));
    replace(this.panel,
      el("div", { class: "dn-plan-head" },
        el("b", {}, `Plan: ${this.action}`), this.tally(counts),
        el("span", { class: "dn-space" }), this.optionInputs()),
      answer.unlikely > 0 && el("p", { class: "dn-note dn-warn" },
        `${count(answer.unlikely)} would wait: no running executor seems able to take them.`),
      this.planTable(answer),
      el("div", { class: "dn-plan-foot" }, confirm,
        el("button", { type: "button", class: "dn-button", on: { click: () => this.close() } },
          "Do nothing"),
        code,
        el("button", { type: "button", class: "dn-quiet", on: { click: async (event) => {
          event.target.textContent = (await copy(answer.code)) ? "copied" : "select it, and copy";
        } } }, "copy as code")));
    this.panel.setAttribute("aria-label", `Plan: ${this.action}`);
    this.panel.hidden = false;
    this.panel.scrollIntoView({ block: "nearest" });
    if (!this.isHeld()) this.read();
  }

  title() {
    return this.action[0].toUpperCase() + this.action.slice(1);
  }

  tally(counts) {
    const words = Object.entries(counts).filter(([, number]) => number);
    return el("span", { class: "dn-quiet" },
      words.map(([word, number]) => `${count(number)} ${word.replace("_", " ")}`).join(", "));
  }

  optionInputs() {
    return (OPTIONS[this.action] ?? []).map(([key, label, kind]) => {
      if (kind === "tick") {
        const input = el("input", { type: "checkbox", checked: Boolean(this.options[key]) });
        input.addEventListener("change", () => this.set(key, input.checked));
        return el("label", { class: "dn-option" }, input, label);
      }
      const id = `${this.lists}-${key}`;
      const values = kind === "steps" ? STEPS : (this.targets?.[kind] ?? []);
      const input = el("input", { type: "text", list: id, spellcheck: "false", autocomplete: "off",
        value: this.options[key] ?? "",
        placeholder: { steps: "failed", versions: "latest", queues: "DBOS's own" }[kind] });
      onEntered(input, () => {
        if (input.value.trim() !== (this.options[key] ?? "")) this.set(key, input.value.trim());
      });
      return el("label", { class: "dn-option" }, label, input,
        el("datalist", { id }, values.map((value) => el("option", { value }))));
    });
  }

  set(key, value) {
    this.options = { ...this.options, [key]: value };
    return this.plan();
  }

  planTable(answer) {
    const rows = answer.rows.map((row) => el("tr", {},
      el("td", {}, statusIcon(OUTCOMES[row.verdict]), ` ${row.verdict.replace("_", " ")}`),
      el("td", {}, row.name && el("b", {}, row.name), " ", el("code", {}, row.workflow_id)),
      el("td", {}, row.status),
      el("td", { class: "dn-effect" }, row.effect),
      el("td", { class: "dn-effect" }, row.will_run)));
    return this.scroll(el("table", {},
      el("thead", {}, el("tr", {}, ["", "workflow", "status now", "what would happen", "will it run"]
        .map((label) => el("th", { scope: "col" }, label)))),
      el("tbody", {}, rows)), answer.left_out);
  }

  scroll(table, leftOut) {
    return el("div", { class: "dn-plan-rows", tabindex: "0" }, table,
      leftOut > 0 && el("p", { class: "dn-note" }, `… and ${count(leftOut)} more`));
  }

  async apply(button, key) {
    button.disabled = true;
    button.textContent = "…";
    const receipt = await this.ask("apply", { key });
    if (!receipt) {
      this.close();
      this.known = null;
      this.done(null);
      return;
    }
    const rows = receipt.rows.map((row) => el("tr", {},
      el("td", {}, statusIcon(OUTCOMES[row.outcome]), ` ${row.outcome.replace("_", " ")}`),
      el("td", {}, el("code", {}, row.workflow_id)),
      el("td", {}, row.status_before, row.status_after !== row.status_before
        && ` → ${row.status_after ?? ""}`),
      el("td", {}, row.new_workflow_id && this.newRun(row.new_workflow_id)),
      el("td", { class: "dn-effect" }, row.detail)));
    replace(this.panel,
      el("div", { class: "dn-plan-head" }, el("b", {}, `Receipt: ${receipt.action}`),
        this.tally(receipt.counts)),
      receipt.notes.map((note) => el("p", { class: "dn-note" }, note)),
      this.scroll(el("table", {},
        el("thead", {}, el("tr", {}, ["outcome", "workflow", "status", "new run", ""]
          .map((label) => el("th", { scope: "col" }, label)))),
        el("tbody", {}, rows)), receipt.left_out));
    // Where the confirmation stood is nothing that its second click would press.
    put(this.panel, el("div", { class: "dn-plan-foot" },
      el("span", { class: "dn-note" }, "widget.receipt holds it"), el("span", { class: "dn-space" }),
      el("button", { type: "button", class: "dn-button", on: { click: () => this.close() } },
        "Close")));
    this.panel.setAttribute("aria-label", `Receipt: ${receipt.action}`);
    this.read();
    this.known = null;
    this.done(receipt);
  }

  newRun(id) {
    if (!this.find) return el("code", { title: id }, id);
    return el("button", { type: "button", class: "dn-link dn-cut", title: `Show the new run ${id}`,
      on: { click: () => this.find(id) } }, id);
  }

  isHeld() {
    return this.panel.contains(this.panel.getRootNode().activeElement);
  }

  // The focus goes to what is to be read: Enter pressed twice, or held, neither confirms nor closes.
  read() {
    this.panel.querySelector(".dn-plan-rows").focus({ preventScroll: true });
  }

  close() {
    const held = this.isHeld();
    this.turn = (this.turn ?? 0) + 1;
    this.panel.hidden = true;
    replace(this.panel);
    if (!held) return;
    const back = this.pressed?.isConnected ? this.pressed : this.bar.querySelector("button:enabled");
    back?.focus({ preventScroll: true });
  }
}
