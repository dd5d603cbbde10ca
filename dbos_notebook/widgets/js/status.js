// Statuses as a person sees them. Names, labels, order and icons come from Python (see
// status_data.d.ts), colours as custom properties of the style sheet status.css.
import { el, icon } from "./dom.js";
import { STATUSES, UNKNOWN_ICON } from "./status_data.js";

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
 * @param {string} status a database may hold any string
 */
export function statusChip(status) {
  const known = BY_NAME.get(status);
  return el("span", { class: "dn-chip", "data-status": status, title: status },
    icon(known?.icon ?? UNKNOWN_ICON), known?.label ?? status);
}

/** @param {string} status */
export function statusIcon(status) {
  return el("span", { class: "dn-chip", "data-status": status, title: status, role: "img",
    "aria-label": status }, icon(BY_NAME.get(status)?.icon ?? UNKNOWN_ICON));
}
