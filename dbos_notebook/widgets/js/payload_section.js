// A payload: its beginning, its size, copies as text, JSON and Python, and a search within it.
import { append, button, copyButton, el, replace, visible } from "./dom.js";
import { formatCount, pluralize, shortClassName } from "./format.js";
/** @import {Answer, Child, ErrorPayload, Key, Payload, PayloadQuestion} from "./types.js" */

/**
 * Asks for a whole payload, or for the lines in which a string occurs.
 * @typedef {(question: PayloadQuestion) => Promise<Answer<"payload"> | null>} AskPayload
 */

/** @type {readonly ["text" | "json" | "python", string, string][]} */
const FORMS = [
  ["text", "Copy text", "Copy the whole value as text"],
  ["json", "Copy JSON", "Copy the whole value as JSON"],
  ["python", "Copy Python", "Copy the whole value as Python"],
];
/** A longer value is collapsed. */
const MOST_LINES = 14;
const MOST_CHARACTERS = 1500;

/**
 * @param {string} name
 * @param {Payload} value
 * @param {AskPayload} [ask] missing in a page without a kernel
 * @param {Key} [key] of the workflow or the step
 */
export function payloadSection(name, value, ask, key) {
  const content = value.text ? el("pre", { tabindex: "0" }, value.text)
    : el("p", { class: "dn-note" }, name === "input" ? "no arguments" : "empty");
  return section(name, value, content, ask && key !== undefined
    ? (question) => ask({ key, name, ...question }) : null);
}

/**
 * The error by its class and message first; the traceback below it, in the order of its frames.
 * @param {ErrorPayload} error
 * @param {AskPayload} [ask]
 * @param {Key} [key]
 */
export function errorSection(error, ask, key) {
  const { type, notes = [], traceback, message = "" } = error;
  if (!type) {
    const made = payloadSection("error", error, ask, key);
    made.classList.add("dn-failure");
    return made;
  }
  const content = el("pre", { tabindex: "0" }, el("b", {}, shortClassName(type)), message && `: ${message}`);
  const made = section("error", { text: message }, content, ask && key !== undefined
    ? (question) => ask({ key, name: "error", ...question }) : null);
  made.classList.add("dn-failure");
  return append(made,
    notes.map((note) => el("p", { class: "dn-note" }, note)),
    type.includes(".") && el("p", { class: "dn-note" }, type),
    traceback && el("details", { open: true }, el("summary", {}, "recorded traceback"),
      el("pre", { tabindex: "0", class: "dn-traceback" }, tracebackLines(traceback))));
}

/**
 * A traceback with the places of its frames.
 * @param {string} traceback
 * @returns {Child}
 */
function tracebackLines(traceback) {
  return traceback.split(/(?<=\n)/).map((line) => /^\s*File ".*", line \d+/.test(line)
    ? el("span", { class: "dn-frame" }, line) : line);
}

/**
 * @param {string} name
 * @param {Payload} value
 * @param {HTMLElement} content
 * @param {((question: {form?: "text" | "json" | "python", find?: string})
 *   => Promise<Answer<"payload"> | null>) | null} ask
 */
function section(name, { text, left_out: leftOut = 0 }, content, ask) {
  const isLarge = leftOut > 0 || text.length > MOST_CHARACTERS || text.split("\n").length > MOST_LINES;
  const found = el("div", { class: "dn-found", hidden: true, role: "status" });
  if (isLarge) content.classList.add("dn-collapsed");
  const expand = button("Show all", null, async () => {
    const isCollapsed = content.classList.toggle("dn-collapsed");
    expand.textContent = isCollapsed ? "Show all" : "Show less";
    expand.setAttribute("aria-expanded", String(!isCollapsed));
    if (isCollapsed || !leftOut || !ask || content.dataset.whole) return;
    const answer = await ask({ form: "python" });
    if (answer?.text === undefined) return;
    content.textContent = visible(answer.text);
    content.dataset.whole = "true";
  }, { class: "dn-button dn-small-button", "aria-expanded": "false" });
  const search = el("input", { type: "search", class: "dn-search dn-find", placeholder: `Find in ${name}`,
    "aria-label": `Find in ${name}`, spellcheck: "false" });
  search.addEventListener("input", async () => {
    const wanted = search.value;
    const answer = wanted && ask ? await ask({ find: wanted }) : null;
    if (search.value !== wanted) return;
    found.hidden = !answer;
    const { lines = [], count = 0 } = answer ?? {};
    replace(found, el("p", { class: "dn-note" }, count ? pluralize(count, "line") : "No line contains this."),
      count > 0 && el("pre", { tabindex: "0" }, lines.map(([number, line]) =>
        [el("span", { class: "dn-muted" }, `${number} `), highlighted(line, wanted), "\n"])));
  });
  return el("section", { class: "dn-payload" },
    el("div", { class: "dn-payload-head" }, el("h4", {}, name),
      isLarge && el("span", { class: "dn-note" }, pluralize(text.length + leftOut, "character")),
      el("span", { class: "dn-space" }),
      ask && FORMS.map(([form, label, title]) => copyButton(label, title,
        async () => (await ask({ form }))?.text ?? null, { class: "dn-muted" }))),
    content,
    isLarge && el("div", { class: "dn-payload-foot" }, (ask || !leftOut) && expand,
      !ask && leftOut > 0 && el("span", { class: "dn-note" },
        `${formatCount(leftOut)} more characters: db.workflow(…) returns the whole value`),
      ask && search),
    found);
}

/**
 * A line with the places marked at which a string occurs.
 * @param {string} line
 * @param {string} wanted
 * @returns {Child}
 */
function highlighted(line, wanted) {
  const at = line.toLowerCase().indexOf(wanted.toLowerCase());
  if (at < 0) return line;
  const end = at + wanted.length;
  return [line.slice(0, at), el("mark", {}, line.slice(at, end)), line.slice(end)];
}
