// The module status_data.js is written by widgets/assets.py, from the one place in Python where
// statuses and outcomes are described.

export interface StatusData {
  /** As DBOS records it. */
  name: string;
  /** What a chip shows. */
  label: string;
  /** What a sentence calls it: "3 failed". */
  phrase: string;
  /** Whether a workflow with this status has ended. */
  finished: boolean;
  /** An SVG path of an icon of 16 × 16; shapes differ as well as colours. */
  icon: string;
}
/** The most severe first. */
export const STATUSES: readonly StatusData[];
/** The icon of a status that DBOS does not know. */
export const UNKNOWN_ICON: string;
/** The status whose icon and colour stand for an outcome of a plan or receipt. */
export const OUTCOMES: Readonly<Record<string, string>>;
