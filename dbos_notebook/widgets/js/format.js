// Times, spans, numbers and statuses as a person reads them.
import { el, icon } from "./dom.js";

const UNITS = [
  ["d", 86400000],
  ["h", 3600000],
  ["min", 60000],
  ["s", 1000],
];

const RING = "M8 1.75a6.25 6.25 0 1 0 0 12.5a6.25 6.25 0 0 0 0-12.5Z";

// Shapes differ as well as colours: a check, a cross, a bar, an arc, a queue, a clock, a triangle.
export const STATUSES = {
  ERROR: ["ERROR", `${RING}M5.7 5.7l4.6 4.6M10.3 5.7l-4.6 4.6`],
  MAX_RECOVERY_ATTEMPTS_EXCEEDED: ["MAX RECOVERY", "M8 2L14.5 13.5H1.5ZM8 6.3v3.4M8 11.4v.6"],
  PENDING: ["PENDING", "M8 1.75a6.25 6.25 0 1 1-5.9 4.2"],
  ENQUEUED: ["ENQUEUED", "M2 4h12M2 8h8.5M2 12h5"],
  DELAYED: ["DELAYED", `${RING}M8 4.7V8l2.3 1.7`],
  SUCCESS: ["SUCCESS", `${RING}M5.2 8.2l2 2l3.7-4.1`],
  CANCELLED: ["CANCELLED", `${RING}M3.8 12.2l8.4-8.4`],
};
export const UNFINISHED = ["PENDING", "ENQUEUED", "DELAYED"];

// A database may hold any word, also one that every object has.
function shapeOf(status) {
  return Object.hasOwn(STATUSES, status) ? STATUSES[status] : [status, RING];
}

export function chip(status) {
  const [label, path] = shapeOf(status);
  return el("span", { class: "dn-chip", "data-status": status, title: status }, icon(path), label);
}

export function statusIcon(status) {
  const [, path] = shapeOf(status);
  const found = el("span", { class: "dn-chip", "data-status": status, title: status }, icon(path));
  found.setAttribute("role", "img");
  found.setAttribute("aria-label", status);
  return found;
}

export function count(number) {
  return number.toLocaleString("en-US");
}

export function span(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "";
  for (const [unit, size] of UNITS) {
    if (ms >= size) {
      const value = ms / size;
      return `${value >= 100 ? Math.round(value) : value.toFixed(1)} ${unit}`;
    }
  }
  return `${Math.max(0, Math.round(ms))} ms`;
}

export function ago(ms, now) {
  const past = now - ms;
  if (Math.abs(past) < 1500) return "now";
  const [unit, size] = UNITS.find(([, size]) => Math.abs(past) >= size) ?? ["s", 1000];
  const value = Math.round(Math.abs(past) / size);
  return past > 0 ? `${value} ${unit} ago` : `in ${value} ${unit}`;
}

const pad = (number, width = 2) => String(number).padStart(width, "0");

// In the reader's own zone, which is named.
export function exact(ms) {
  if (ms === null || ms === undefined) return "an unknown time";
  const at = new Date(ms);
  const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  const away = -at.getTimezoneOffset();
  const sign = away < 0 ? "−" : "+";
  const zone = `${sign}${pad(Math.floor(Math.abs(away) / 60))}:${pad(Math.abs(away) % 60)}`;
  return `${day} ${time}.${pad(at.getMilliseconds(), 3)} UTC${away ? zone : ""}`;
}

// A time that says how long ago, and exactly when under the pointer.
export function when(ms, now) {
  if (ms === undefined || ms === null) return "";
  const shown = el("time", { title: exact(ms), "data-ms": ms }, ago(ms, now));
  shown.dateTime = new Date(ms).toISOString();
  return shown;
}
