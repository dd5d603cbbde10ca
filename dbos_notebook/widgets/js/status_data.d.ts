// The module status_data.js is no file: widgets/bundle.py writes it, so that statuses and outcomes
// are described in Python alone.

export interface StatusData {
  /** As DBOS records it. */
  name: string;
  /** What a chip shows. */
  label: string;
  /** What a sentence calls it: "3 failed". */
  phrase: string;
  /** Whether a workflow with this status has ended. */
  finished: boolean;
}
/** The most severe first. */
export const STATUSES: readonly StatusData[];
/** The status whose icon and colour stand for an outcome of a plan or receipt. */
export const OUTCOMES: Readonly<Record<string, string>>;
