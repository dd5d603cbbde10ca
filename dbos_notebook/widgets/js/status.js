// Statuses as a person sees them: their names, labels and order come from Python (status_data.d.ts),
// and so do their colours (status.css, as the custom property --dn-status).
import { el, icon } from "./dom.js";
import { STATUSES } from "./status_data.js";

const RING = "M8 1.75a6.25 6.25 0 1 0 0 12.5a6.25 6.25 0 0 0 0-12.5Z";
// Paths of 16 × 16. Shapes differ as well as colours: cross, triangle, arc, queue, clock, check, bar.
const ICONS = new Map(Object.entries({
  ERROR: `${RING}M5.7 5.7l4.6 4.6M10.3 5.7l-4.6 4.6`,
  MAX_RECOVERY_ATTEMPTS_EXCEEDED: "M8 2L14.5 13.5H1.5ZM8 6.3v3.4M8 11.4v.6",
  PENDING: "M8 1.75a6.25 6.25 0 1 1-5.9 4.2",
  ENQUEUED: "M2 4h12M2 8h8.5M2 12h5",
  DELAYED: `${RING}M8 4.7V8l2.3 1.7`,
  SUCCESS: `${RING}M5.2 8.2l2 2l3.7-4.1`,
  CANCELLED: `${RING}M3.8 12.2l8.4-8.4`,
}));
// By name, which in a database may be any string, also one that every object has as a property.
const BY_NAME = new Map(STATUSES.map((status) => [status.name, status]));

/** The most severe first. */
export const STATUS_NAMES = STATUSES.map((status) => status.name);
export const FINISHED = STATUSES.filter((status) => status.finished).map((status) => status.name);
export const UNFINISHED = STATUSES.filter((status) => !status.finished)
  .map((status) => status.name);

/** @param {string} status */
export function isUnfinished(status) {
  return UNFINISHED.includes(status);
}

/**
 * What a sentence calls a status: "3 failed".
 * @param {string} status
 */
export function statusPhrase(status) {
  return BY_NAME.get(status)?.phrase ?? status;
}

/**
 * An icon with the status's label.
 * @param {string} status
 */
export function statusChip(status) {
  return el("span", { class: "dn-chip", "data-status": status, title: status }, pathIcon(status),
    BY_NAME.get(status)?.label ?? status);
}

/** @param {string} status */
export function statusIcon(status) {
  return el("span", { class: "dn-chip", "data-status": status, title: status, role: "img",
    "aria-label": status }, pathIcon(status));
}

/** @param {string} status */
function pathIcon(status) {
  return icon(ICONS.get(status) ?? RING);
}
