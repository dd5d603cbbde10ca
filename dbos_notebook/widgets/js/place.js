// Where the console is, as the fragment of a URL: #/run/<ID>?tab=timeline, #/list?status=ERROR, #/board.
/** @import {Key, Place, Tab} from "./types.js" */

const TABS = ["graph", "timeline", "steps"];
/** The fields of the list that hold one string; the others hold several. */
const STRINGS = ["mode", "sort", "search", "error", "attributes", "start_time", "end_time",
  "completed_after"];
const LISTS = ["status", "name", "queue_name", "app_version", "user", "executor_id", "application_name"];

/**
 * @param {Place} place
 * @returns {string}
 */
export function formatPlace({ view, id = "", tab, node, list = {}, window }) {
  const query = new URLSearchParams();
  if (tab && tab !== "graph") query.append("tab", tab);
  if (node) query.append("node", JSON.stringify(node));
  if (window) query.append("window", window);
  for (const [name, value] of Object.entries(list)) {
    if (name === "descending" && value !== null) query.append(name, String(value));
    if (name === "size") query.append(name, String(value));
    if (STRINGS.includes(name) && value) query.append(name, String(value));
    if (LISTS.includes(name) && Array.isArray(value)) for (const one of value) query.append(name, one);
  }
  const path = view === "run" ? `run/${encodeURIComponent(id)}` : view;
  return `#/${path}${query.size ? `?${query}` : ""}`;
}

/**
 * Read a fragment that anybody may have written: what is not understood is skipped; null: nothing is.
 * @param {string} fragment
 * @returns {Place | null}
 */
export function parsePlace(fragment) {
  const [, view, , rawId = "", , rawQuery = ""] =
    /^#\/(list|board|run|schedules)(\/([^?]*))?(\?(.*))?$/.exec(fragment) ?? [];
  const query = new URLSearchParams(rawQuery);
  if (view === "run") {
    const id = decode(rawId);
    const tab = query.get("tab") ?? "";
    const known = TABS.includes(tab) ? /** @type {Tab} */ (tab) : undefined;
    return id ? { view, id, tab: known, node: parseKey(query.get("node")) } : null;
  }
  if (view === "schedules") return { view };
  if (view === "board") return { view, window: query.get("window") ?? undefined };
  if (view !== "list") return null;
  /** @type {Record<string, unknown>} */
  const list = {};
  for (const name of STRINGS) if (query.has(name)) list[name] = query.get(name);
  for (const name of LISTS) if (query.has(name)) list[name] = query.getAll(name);
  if (query.has("descending")) list.descending = query.get("descending") === "true";
  if (Number(query.get("size"))) list.size = Number(query.get("size"));
  return { view, list };
}

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return ""; // not an encoded string
  }
}

/**
 * @param {string | null} text
 * @returns {Key | undefined}
 */
function parseKey(text) {
  try {
    const key = JSON.parse(text ?? "null");
    const isPart = (/** @type {unknown} */ part) => typeof part === "string" || typeof part === "number";
    if (typeof key === "string" || (Array.isArray(key) && key.length && key.every(isPart))) return key;
  } catch {
    // not JSON
  }
  return undefined;
}
