// The module status_data.js is no file: widgets/bundle.py writes it from status.py, so that statuses
// and outcomes are described in Python alone.

/** One SVG path of a mark, in a box from -8 to 8. */
export interface MarkPath {
  d: string;
  fill: "status" | "ground" | "none";
  stroke: "status" | "ground" | "none";
  width: number;
}
export interface StatusData {
  /** As DBOS records it. */
  name: string;
  /** What a chip shows. */
  label: string;
  /** What a sentence calls it: "3 failed". */
  phrase: string;
  /** Whether a workflow with this status has ended. */
  finished: boolean;
  mark: readonly MarkPath[];
}
export interface OutcomeData {
  label: string;
  /** The status whose mark and color it has. */
  status: string;
}
/** The most severe first. */
export const STATUSES: readonly StatusData[];
/** The mark of a status that DBOS does not know. */
export const UNKNOWN_MARK: readonly MarkPath[];
/** The outcomes of plans and receipts. */
export const OUTCOMES: Readonly<Record<string, OutcomeData>>;
