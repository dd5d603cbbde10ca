// Formats times, durations, numbers and errors.
import { el, linkButton } from "./dom.js";
/** @import {Activity, Child} from "./types.js" */

/** @type {readonly [string, number][]} */
const AGES = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1000]];
/**
 * The larger unit, the smaller, how many make a larger one, and seconds in a smaller one.
 * @type {readonly [string, string, number, number][]}
 */
const UNITS = [["d", "h", 24, 3600], ["h", "m", 60, 60], ["m", "s", 60, 1]];

/** @param {number} number */
export function formatCount(number) {
  return number.toLocaleString("en-US");
}

/**
 * A number with its noun: "1 failure", "12,000 failures".
 * @param {number} number
 * @param {string} noun
 * @param {string} [nouns]
 */
export function pluralize(number, noun, nouns = `${noun}s`) {
  return `${formatCount(number)} ${number === 1 ? noun : nouns}`;
}

const DOTTED = /^[\p{L}\p{N}_<>$-]+(\.[\p{L}\p{N}_<>$-]+)+$/u;

/**
 * The part of a dotted name that distinguishes it, as `leaf_name` in text.py returns it.
 * @param {string} name
 */
export function leafName(name) {
  if (!name.includes(".") || !DOTTED.test(name)) return name;
  const parts = name.split(".");
  const part = (/** @type {number} */ index) => parts[index] ?? "";
  let start = parts.length - 1;
  while (start && (!/^[\p{L}_]/u.test(part(start)) || /^\p{Lu}/u.test(part(start - 1))
    || part(start - 1).replace(/^_+|_+$/g, "").includes("__"))) start -= 1;
  return parts.slice(start).join(".");
}

/**
 * The leaf of a name, which breaks after underscores and dots where it does not fit on a line.
 * @param {string} name
 * @returns {Child}
 */
export function breakableName(name) {
  const parts = leafName(name).match(/[^._]+[._]*|[._]+/g) ?? [];
  return parts.map((part, index) => [index > 0 && el("wbr"), part]);
}

/**
 * An ID shortened in its middle, a child's default ID relative to its parent's, as `shorten_id` in text.py.
 * @param {string} id
 * @param {number} [maxLength]
 * @param {string | null} [parentId]
 */
export function shortenId(id, maxLength = 24, parentId = null) {
  const relative = parentId && id.startsWith(`${parentId}-`) ? `…${id.slice(parentId.length)}` : id;
  if (relative.length <= maxLength) return relative;
  const end = Math.floor((maxLength - 1) / 2);
  return `${relative.slice(0, maxLength - 1 - end)}…${relative.slice(-end)}`;
}

/**
 * A duration in its two largest units, as Python writes it in pictures; empty where it is not known.
 * @param {number | null | undefined} ms
 * @returns {string}
 */
export function formatDuration(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "";
  if (ms < 0) return `−${formatDuration(-ms)}`;
  const seconds = ms / 1000;
  if (seconds < 0.9995) return `${ms.toFixed(0)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.95) return `${Number(seconds.toPrecision(3))} s`;
  const whole = Math.floor(seconds + 0.5);
  for (const [large, small, ratio, size] of UNITS) {
    const units = Math.floor(whole / size);
    const [count, rest] = [Math.floor(units / ratio), units % ratio];
    if (count) return rest ? `${count} ${large} ${rest} ${small}` : `${count} ${large}`;
  }
  return `${whole} s`;
}

/**
 * A duration that is accurate to one second only.
 * @param {number} ms
 */
export function formatSeconds(ms) {
  if (ms < 1000) return "< 1 s";
  return `about ${ms < 60_000 ? `${Math.round(ms / 1000)} s` : formatDuration(ms)}`;
}

/**
 * What an active workflow is doing now, with what that is inferred from.
 * @param {Activity} activity
 */
export function activityLine({ kind, text, stuck, evidence, remedy }) {
  return el("div", { class: "dn-activity", "data-kind": kind, "data-stuck": stuck, title: evidence }, text,
    remedy && el("span", { class: "dn-muted" }, ` · ${remedy}`));
}

/**
 * The time between two instants, where both are known.
 * @param {number | undefined} begin
 * @param {number | undefined} end
 */
export function elapsed(begin, end) {
  return begin === undefined || end === undefined ? undefined : end - begin;
}

/**
 * How long ago an instant was, or how far ahead it is.
 * @param {number} ms
 * @param {number} now
 */
export function formatAge(ms, now) {
  const age = now - ms;
  if (Math.abs(age) < 1500) return "now";
  const [unit, size] = AGES.find(([, smallest]) => Math.abs(age) >= smallest) ?? ["s", 1000];
  const value = Math.round(Math.abs(age) / size);
  return age > 0 ? `${value} ${unit} ago` : `in ${value} ${unit}`;
}

/**
 * @param {number} number
 * @param {number} [width]
 */
function pad(number, width = 2) {
  return String(number).padStart(width, "0");
}

/**
 * A date in the reader's time zone.
 * @param {Date} at
 */
export function formatDate(at) {
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
}

/**
 * Hours and minutes in the reader's time zone.
 * @param {Date} at
 */
export function formatClock(at) {
  return `${pad(at.getHours())}:${pad(at.getMinutes())}`;
}

/**
 * An instant to the millisecond, in the reader's time zone, which is named.
 * @param {number | null | undefined} ms
 */
export function formatInstant(ms) {
  if (ms === null || ms === undefined) return "unknown time";
  const at = new Date(ms);
  const time = `${formatClock(at)}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
  const offset = -at.getTimezoneOffset();
  const zone = `${offset < 0 ? "−" : "+"}${pad(Math.floor(Math.abs(offset) / 60))}`
    + `:${pad(Math.abs(offset) % 60)}`;
  return `${formatDate(at)} ${time} UTC${offset ? zone : ""}`;
}

/**
 * A time that shows its age, and the exact instant as its title. Polling keeps it up to date.
 * @param {number | undefined} ms
 * @param {number} now
 */
export function ageOf(ms, now) {
  if (ms === undefined) return "";
  const shown = el("time", { title: formatInstant(ms), "data-ms": ms }, formatAge(ms, now));
  shown.dateTime = new Date(ms).toISOString();
  return shown;
}

/**
 * The time since an instant. Polling keeps it up to date.
 * @param {number | undefined} ms
 * @param {number} now
 * @param {string} title
 */
export function runningTime(ms, now, title) {
  if (ms === undefined) return "";
  return el("span", { class: "dn-running", "data-since": ms, title }, formatSince(ms, now));
}

/**
 * @param {number} ms
 * @param {number} now the kernel's clock may be behind the database's
 */
export function formatSince(ms, now) {
  return formatDuration(Math.max(0, now - ms));
}

/**
 * The name of a class without its module.
 * @param {string} type
 */
export function shortClassName(type) {
  return type.slice(type.lastIndexOf(".") + 1);
}

/**
 * Where something failed, and after how many attempts, before its error.
 * @typedef {{ failed_at?: string, error_attempts?: number }} Failure
 * @param {Failure} failure
 */
export function failedAt({ failed_at: place, error_attempts: attempts }) {
  return [place, attempts && `failed after ${pluralize(attempts, "attempt")}`]
    .filter(Boolean).map((part) => `${part}: `).join("");
}

/**
 * The error of a workflow in short.
 * @param {string | undefined} type
 * @param {string | undefined} message
 * @param {string} [note] what stands between the two
 * @param {Failure} [failure]
 * @returns {Child}
 */
export function errorLine(type, message, note = "", failure = {}) {
  if (!type && !message) return null;
  return el("div", { class: "dn-error", title: message }, failedAt(failure), type && el("b", {}, shortClassName(type)), note,
    message && (type ? `: ${message}` : message));
}

const TAIL_LENGTH = 8;

/**
 * A string that is cut in its middle where there is no room for it: both ends distinguish it.
 * @param {string} text
 */
export function middleCut(text) {
  if (text.length < 2 * TAIL_LENGTH) return text;
  return [el("span", { class: "dn-head" }, text.slice(0, -TAIL_LENGTH)), text.slice(-TAIL_LENGTH)];
}

/**
 * An ID, a child's default ID relative to its parent's.
 * @param {string} id
 * @param {string | null} [parentId]
 */
export function idLabel(id, parentId = null) {
  return el("code", { class: "dn-id dn-cut", title: id }, middleCut(shortenId(id, Infinity, parentId)));
}

/**
 * An ID that leads to its workflow.
 * @param {string} id
 * @param {string} title
 * @param {(id: string) => unknown} open
 * @param {string | null} [parentId]
 */
export function idLink(id, title, open, parentId = null) {
  return linkButton(middleCut(shortenId(id, Infinity, parentId)), title, () => open(id),
    { class: "dn-link dn-cut" });
}
