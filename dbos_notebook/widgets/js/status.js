// Statuses as a person sees them: their names, labels, marks and order come from Python
// (status_data.d.ts), and so do their colours (status.css, as the custom property --dn-status).
import { el, svg } from "./dom.js";
import { STATUSES, UNKNOWN_STATUS } from "./status_data.js";

/** The colours of a mark, by what its paths call them. */
const COLORS = { status: "currentColor", ground: "var(--dn-ground, Canvas)", none: "none" };
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
  return el("span", { class: "dn-chip", "data-status": status, title: status }, markIcon(status),
    BY_NAME.get(status)?.label ?? status);
}

/** @param {string} status */
export function statusIcon(status) {
  return el("span", { class: "dn-chip", "data-status": status, title: status, role: "img",
    "aria-label": status }, markIcon(status));
}

/** @param {string} status */
function markIcon(status) {
  const { mark } = BY_NAME.get(status) ?? UNKNOWN_STATUS;
  return svg("svg", { class: "dn-icon", viewBox: "-8 -8 16 16", "aria-hidden": "true" },
    mark.map(({ d, fill, stroke, width }) => svg("path", { d, fill: COLORS[fill],
      stroke: COLORS[stroke], "stroke-width": width })));
}
