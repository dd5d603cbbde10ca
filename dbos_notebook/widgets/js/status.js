// Statuses as a person sees them. Names, labels, order and marks come from Python (status_data.d.ts),
// and so do colors (status.css, as the custom property --dn-status).
import { el, svg } from "./dom.js";
import { STATUSES, UNKNOWN_MARK } from "./status_data.js";

// In a database a status may be any string, also one that every object has as a property.
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
 * The mark and the label of a status.
 * @param {string} status
 * @param {string} [label] other than that of the status
 */
export function statusChip(status, label = undefined) {
  return el("span", { class: "dn-chip", "data-status": status, title: label ?? status }, mark(status),
    label ?? BY_NAME.get(status)?.label ?? status);
}

/**
 * The mark of a status alone, which a screen reader names.
 * @param {string} status
 * @param {string} [label]
 */
export function statusIcon(status, label = status) {
  return el("span", { class: "dn-chip", "data-status": status, title: label, role: "img",
    "aria-label": label }, mark(status));
}

/** @param {string} status */
function mark(status) {
  const paths = BY_NAME.get(status)?.mark ?? UNKNOWN_MARK;
  return svg("svg", { viewBox: "-8 -8 16 16", class: "dn-icon dn-status-mark", "aria-hidden": "true" },
    paths.map(({ d, fill, stroke, width }) => svg("path", { d, "stroke-width": width,
      class: `dn-fill-${fill} dn-stroke-${stroke}` })));
}
