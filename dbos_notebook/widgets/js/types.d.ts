// Types of the values that travel between a view's Python half and its browser half. They are read
// by the type checker alone (see scripts/js); nothing here reaches a browser.

// --- elements --------------------------------------------------------------------------------

/** What `el` and `append` accept as a child: false, null and undefined are skipped. */
export type Child = Node | string | number | false | null | undefined | readonly Child[];
export type Handlers = {
  [Name in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[Name]) => unknown;
};
export interface Attributes {
  [name: string]: string | number | boolean | null | undefined | Handlers;
  on?: Handlers;
}

// --- the widget's model ------------------------------------------------------------------------

/** A node's key as JSON: a workflow's ID, or the parts of a tuple such as [workflow ID, step]. */
export type Key = string | readonly (string | number)[];
export type Callback = (...values: any[]) => void;

/** The part of anywidget's model that the views use. */
export interface Model<Traits> {
  get<Name extends keyof Traits>(name: Name): Traits[Name];
  set<Name extends keyof Traits>(name: Name, value: Traits[Name]): void;
  save_changes(): void;
  on(event: string, callback: Callback): void;
  off(event: string, callback: Callback): void;
  send(message: object): void;
}
export interface BaseTraits {
  _token: string;
}
export interface LiveTraits extends BaseTraits {
  live: boolean;
}
export interface ExploreTraits extends LiveTraits {
  selected: string[];
  _select_all: boolean;
  _start: ExploreStart;
}
export interface InspectTraits extends LiveTraits {
  workflow_id: string;
  _selected: (string | number)[];
  _start: InspectStart;
}
export interface BoardTraits extends LiveTraits {
  window: string;
  _start: { windows: string[]; location: string; forbidden: string | null; read_only: boolean };
}
export interface ControlsTraits extends BaseTraits {
  _start: { ids: string[]; schedules: boolean; forbidden: string | null; read_only: boolean };
}
export interface ConsoleTraits extends BaseTraits {
  _start: {
    sync_url: boolean;
    location: string;
    list: ExploreStart;
    board: BoardTraits["_start"];
    schedules: ControlsTraits["_start"];
  };
  _place: { view: PartName; id?: string; by?: "kernel" | "browser"; number?: number };
  _list: object;
  _board: object;
  _run: object;
  _schedules: object;
}
export type PartName = "list" | "board" | "run" | "schedules";
/** What the console shows: a part, with what is chosen in it. */
export interface Place {
  view: PartName;
  /** The run, its tab and its selected node. */
  id?: string;
  tab?: Tab;
  node?: Key;
  /** What differs in the list from its start. */
  list?: Partial<ListView>;
  /** The period of the board. */
  window?: string;
}
/** How a view that is part of the console leads to the others. */
export interface Navigation {
  /** Show a run, and one of its nodes. */
  open(workflowId: string, node?: Key): unknown;
  /** Show the list with these filters and no others. */
  filter(filters: Partial<ListView>): unknown;
  /** What is shown within the part has changed. */
  changed(): unknown;
}
export interface ExploreStart {
  view: ListView;
  fixed: string[];
  sizes: number[];
  /** The number of workflows that one action takes of all that match. */
  max_all: number;
  has_parents: boolean;
  has_attributes: boolean;
  location: string;
  forbidden: string | null;
  read_only: boolean;
}
export interface InspectStart {
  tab: Tab;
  read_only: boolean;
  forbidden: string | null;
  offline?: boolean;
}
/** What a host passes to a view's `render`. */
export interface RenderProps<Traits> {
  model: Model<Traits>;
  el: HTMLElement;
}

// --- workflows and steps -----------------------------------------------------------------------

/** Times are milliseconds since 1970, durations milliseconds; a missing value is left out. */
export interface Row {
  id: string;
  status: string;
  name?: string;
  class_name?: string;
  config_name?: string;
  app_version?: string;
  application_name?: string;
  executor_id?: string;
  queue_name?: string;
  queue_partition_key?: string;
  deduplication_id?: string;
  error_type?: string;
  error_message?: string;
  error_wrapper?: string;
  error_attempts?: number;
  failed_step?: string;
  failed_step_id?: number;
  failed_workflow_id?: string;
  /** The step that failed in words. */
  failed_at?: string;
  schedule_name?: string;
  authenticated_user?: string;
  assumed_role?: string;
  attributes?: string;
  parent_workflow_id?: string;
  forked_from?: string;
  was_forked_from?: boolean;
  /** Whether it failed, and a fork of it succeeded; in the list only. */
  repaired?: boolean;
  priority?: number;
  recovery_attempts?: number;
  created_at?: number;
  updated_at?: number;
  dequeued_at?: number;
  completed_at?: number;
  delay_until?: number;
  workflow_deadline?: number;
  enqueued_at?: number;
  started_at?: number;
  duration?: number;
  /** Number of children; in the list only. */
  children?: number;
  /** Place on its queue, from 1; in the list only. */
  position?: number;
  queue_length?: number;
}
/** A decoded value as a string, and how many characters were cut from it. */
export interface Payload {
  text: string;
  left_out?: number;
}
export interface ErrorPayload extends Payload {
  type?: string;
  message?: string;
  wrapper?: string;
  attempts?: number;
  notes?: string[];
  traceback?: string;
}
/** What an active workflow is doing now. */
export interface Activity {
  kind: string;
  text: string;
  /** Whether it appears to wait for what will not happen by itself. */
  stuck?: boolean;
  /** What it is inferred from. */
  evidence?: string;
  remedy?: string;
  until?: number;
}
export interface StoredPayload {
  name: string;
  format: string;
  length: number;
  text: string;
}
export interface Step {
  number: number;
  name: string;
  status: string;
  started_at?: number;
  completed_at?: number;
  child?: string;
  result?: Payload;
}
export interface Fork {
  id: string;
  status: string;
}
export interface Payloads {
  input?: Payload;
  output?: Payload;
  error?: ErrorPayload;
}
export interface StepsPage {
  steps: Step[];
  more_steps: boolean;
}
/** The newest values of a stream, the newest first. */
export interface Stream {
  name: string;
  closed: boolean;
  values: { offset: number; value: Payload }[];
}
/** Asks for a whole payload, or for the lines in which a string occurs. */
export interface PayloadQuestion {
  key: Key;
  name: string;
  form?: "text" | "json" | "python";
  find?: string;
}
export interface WorkflowDetails extends Payloads {
  events?: { name: string; value: Payload }[];
  streams?: Stream[];
  row: Row;
  forks: Fork[];
}

// --- the list ----------------------------------------------------------------------------------

export type Mode = "flat" | "tree" | "queued";
/** The filters, sort order and mode that are set in the list. */
export interface ListView {
  mode: Mode;
  size: number;
  sort?: string;
  descending?: boolean | null;
  search?: string;
  error?: string;
  attributes?: string;
  start_time?: string;
  end_time?: string;
  completed_after?: string;
  status?: string[];
  name?: string[];
  queue_name?: string[];
  app_version?: string[];
  user?: string[];
  executor_id?: string[];
  application_name?: string[];
}
export type ChosenFilter =
  "name" | "queue_name" | "app_version" | "user" | "executor_id" | "application_name";
/** Where a page ends, as the next one is asked for. */
export type Cursor = readonly unknown[];
export interface Page {
  rows: Row[];
  more: boolean;
  last: Cursor;
  searched_to: number | null;
}
/** The number of workflows by status, null where they are too many to count, and how long it took. */
export interface Counts {
  counts: Record<string, number> | null;
  count_took: number;
}
export interface Children {
  rows: Row[];
  left_out: number;
}
export interface Column {
  key: keyof Row | "queue_position";
  label: string;
  show?: (row: Row, now: number) => Child;
  /** The higher, the wider the view in which it still stands below the name. */
  rank: number;
  /** What names the value below the name. */
  unit?: string;
  /** The width of its column, as CSS writes a grid track. */
  track?: string;
  number?: boolean;
  optional?: boolean;
  main?: boolean;
  /** Whether the largest value that is shown has the smallest sort key. */
  reversed?: boolean;
}

// --- one workflow --------------------------------------------------------------------------------

export type Tab = "graph" | "timeline" | "steps";
/** A node of the graph in short, as lists and pictures name it. */
export interface GraphNode {
  /** Identifies the node's element in a picture. */
  ref: string;
  key: Key;
  kind: string;
  name: string;
  status: string;
  workflow_id?: string;
  number?: number;
  operation?: string;
  group?: string;
  /** How a picture names a group. */
  title?: string;
  of?: string;
  count?: number;
  levels?: number;
  difference?: string;
  first?: Key;
  second?: Key;
  error?: string;
  error_message?: string;
  error_attempts?: number;
  duration?: number;
  /** The duration in words, where the steps refine what the row says. */
  took?: string;
  /** When a workflow that is running started. */
  since?: number;
}
export interface ListedNode extends GraphNode {
  depth: number;
  /** Whether the start is known to the second only. */
  in_seconds?: boolean;
  started_at?: number;
  completed_at?: number;
  created_at?: number;
}
export interface NodeList {
  rows: ListedNode[];
  left_out: number;
}
export interface Picture {
  svg: string;
  nodes: GraphNode[];
  /** Pairs of `ref`. */
  edges: [string, string][];
  /** Whether it is the process map of the run. */
  overview?: boolean;
}
export interface RunFacts {
  row: Row;
  forks: Fork[];
  failures: GraphNode[];
  more_failures: number;
  counts: string;
  took: string;
  unstarted: string;
  active: boolean;
}
export interface PictureOptions {
  open: string[];
  hide: boolean;
  critical: boolean;
  direction: "auto" | "LR" | "TB";
  /** Whether the process map is shown; null: if the graph is not legible as a whole. */
  overview: boolean | null;
}
export interface PictureView extends PictureOptions {
  picture: "graph" | "timeline";
  width: number;
}
export interface StepDetails extends Payloads {
  kind: "step";
  key: Key;
  step: Step & { workflow_id: string };
  attempts?: number;
}
export interface WorkflowNodeDetails extends WorkflowDetails {
  kind: "workflow";
  key: Key;
}
export interface GroupDetails extends GraphNode {
  kind: "group" | "aggregate";
  count: number;
  statuses: Record<string, number>;
  inside: number;
  members: GraphNode[];
  left_out: number;
  failed_step?: string;
  errors?: Record<string, number>;
  /** The workflows that failed. */
  failed?: string[];
  duration_min?: number;
  duration_median?: number;
  duration_max?: number;
  duration_total?: number;
}
export interface RunningDetails {
  kind: "running";
  key: Key;
  name?: string;
  workflow_id?: string;
}
export type NodeDetails = StepDetails | WorkflowNodeDetails | GroupDetails | RunningDetails;
export interface ComparedRow extends Pick<GraphNode, "name"> {
  kind?: string;
  group?: string;
  ref?: string;
  difference: string;
  first?: Key;
  second?: Key;
  status_first?: string;
  status_second?: string;
  error_type_first?: string;
  error_type_second?: string;
  duration_first?: number;
  duration_second?: number;
  took_first?: string;
  took_second?: string;
}
export interface ComparisonAnswer {
  picture: Picture;
  counts: Record<string, number>;
  rows: ComparedRow[];
  left_out: number;
}

// --- the board -----------------------------------------------------------------------------------

export interface BoardQueue {
  name: string;
  partition?: string;
  oldest?: number;
  rate_max?: number;
  rate_period?: number;
  enqueued: number;
  running: number;
  delayed: number;
  concurrency?: number;
  worker_concurrency?: number;
}
export interface BoardFailure {
  name: string;
  step?: string;
  type?: string;
  /** The template of the messages. */
  message?: string;
  count: number;
  unaddressed: number;
  /** Parents that failed because of them. */
  ancestors: number;
  versions: string[];
  last: number;
  id: string;
  /** What a repair is planned for. */
  ids: string[];
}
export interface BoardDurations {
  name: string;
  count: number;
  p50?: number;
  p99?: number;
  /** Accurate to a second only. */
  coarse?: true;
}
export interface BoardFinding {
  severity: "critical" | "warning" | "info";
  subject: string;
  /** With full names of workflows. */
  full_subject: string;
  says: string;
  evidence: string;
  remedy: string;
  affected: number;
  since?: number;
  ids: string[];
  /** The action that would help, on these workflows or this schedule. */
  action?: "cancel" | "resume" | "backfill_schedule";
  targets?: string[];
  options?: ActionOptions;
}
export interface BoardFacts {
  begin: number;
  width: number;
  bars: number;
  active: Record<string, number>;
  series: Record<string, number[]>;
  queues: BoardQueue[];
  more_queues: number;
}

// --- control -------------------------------------------------------------------------------------

export type WorkflowAction = "cancel" | "resume" | "fork" | "repair" | "send" | "set_delay"
  | "set_attributes" | "delete";
export type Action = WorkflowAction | "pause_schedule" | "resume_schedule" | "trigger_schedule"
  | "backfill_schedule" | "delete_schedule";
export interface ActionOptions {
  cancel_children?: boolean;
  /** Resume also what may still run. */
  force?: boolean;
  queue_name?: string;
  start_step?: string;
  application_version?: string;
  message?: string;
  topic?: string;
  format?: string;
  delay?: string;
  attributes?: string;
  merge?: boolean;
  delete_children?: boolean;
  start?: string;
  end?: string;
}
/** On how many workflows an action would act, and why on none. */
export interface ActionAvailability {
  count: number;
  why: string;
  /** To send only: how many appear to wait for a message, and for which topics. */
  waits?: number;
  topics?: string[];
}
/** The workflows of an action: these, or all that match the filters of the list. */
export interface ActionWorkflows {
  ids: string[];
  select_all?: boolean;
  view?: ListView;
}
export interface PlanRow {
  workflow_id: string;
  verdict: string;
  name?: string;
  status?: string;
  effect?: string;
  new_workflow_id?: string;
  will_run?: string;
}
export interface Plan {
  key: string;
  counts: Record<string, number>;
  rows: PlanRow[];
  left_out: number;
  unlikely: number;
  /** Whether an executor will run them, where that is the same for all; the rows then omit it. */
  will_run?: string;
  /** What would be changed, by start step or name. */
  kinds: string[];
  notes: string[];
  /** Whether the action is confirmed twice. */
  confirm: boolean;
  /** Why nothing of it would be done; empty if it would. */
  problem: string;
  code: string;
}
export interface ReceiptRow {
  workflow_id: string;
  outcome: string;
  status_before?: string;
  status_after?: string;
  new_workflow_id?: string;
  detail?: string;
}
export interface Receipt {
  key: string;
  action: Action;
  counts: Record<string, number>;
  ok: boolean;
  rows: ReceiptRow[];
  left_out: number;
  notes: string[];
  /** Whether its workflows can be followed until they have ended. */
  follows: boolean;
}
/** How far the workflows of a receipt are. */
export interface Progress {
  text: string;
  ended: boolean;
  statuses: Record<string, string>;
}
export interface Schedule {
  schedule_name: string;
  workflow_name?: string;
  schedule?: string;
  cron_timezone?: string;
  status?: string;
  last_fired_at?: string;
  /** When it starts its next workflow, in milliseconds since 1970. */
  next?: number | null;
  queue_name?: string;
}

// --- questions and answers -----------------------------------------------------------------------

/** When an answer was read, and its stamp: the same while nothing has changed. */
export interface Stamped {
  stamp: string;
  now: number;
  took?: number;
}
/** The answer to a question whose stamp still holds, in place of the whole answer. */
export interface Same extends Stamped {
  same: true;
}
export type Fresh<Answer> = Answer & Stamped & { same?: undefined };

/** What each kind of message asks, and what is answered. */
export interface Messages {
  // The list.
  page: [
    {
      view: ListView; after: Cursor; stamp?: string | null; limit?: number; part?: number;
      counts?: boolean;
    },
    (Fresh<Page> | Same) & Partial<Counts>,
  ];
  activities: [{ ids: string[] }, { activities: Record<string, Activity> }];
  choices: [object, { choices: Partial<Record<ChosenFilter, string[]>> }];
  details: [
    { id: string; stamp?: string },
    Fresh<WorkflowDetails & StepsPage> | { same: true },
  ];
  steps: [{ id: string; after: number }, StepsPage];
  payload: [PayloadQuestion, { text?: string; lines?: [number, string][]; count?: number }];
  children: [{ id: string }, Children];
  code: [
    { view: ListView; selection: boolean } | { id: string; key: Key | null },
    { text: string },
  ];
  // One workflow.
  show: [
    { id: string; view: PictureView; anew: boolean; stamp: string | null },
    Fresh<{ facts: RunFacts; picture: Picture; open: string[]; active: boolean }>
    | (Same & { active: boolean }),
  ];
  node: [{ id: string; key: Key; view: Partial<PictureView> }, NodeDetails];
  reveal: [{ id: string; view: PictureView; key: Key }, { picture: Picture; open: string[] }];
  search: [{ id: string; text: string }, { found: GraphNode[]; count: number }];
  list: [{ id: string }, NodeList];
  raw: [{ key: Key }, { payloads: StoredPayload[] }];
  compare: [
    { first: string; second: string; anew: boolean; view: PictureView },
    ComparisonAnswer,
  ];
  // The console.
  open: [{ id: string }, { start: InspectStart; traits: object }];
  // The board, and the buttons alone.
  board: [{ stamp: string | null }, Fresh<BoardFacts> | Same];
  causes: [{ stamp: string | null }, { stamp: string; took: number } & ({ same: true } | {
    same?: undefined;
    failures: BoardFailure[];
    more_failures: number;
    durations: BoardDurations[];
    more_durations: number;
  })];
  attention: [object, {
    findings: BoardFinding[];
    more_findings: number;
    took: number;
    rows: { row: Row; activity: Activity; count: number }[];
    left_out: number;
    examined: number | null;
  }];
  rows: [object, { rows: Row[]; counts: Record<string, number>; stamp: string }];
  // Control.
  possible: [ActionWorkflows, { possible: Record<WorkflowAction, ActionAvailability> }];
  plan: [ActionWorkflows & { action: Action; options: ActionOptions; key: string }, Plan];
  apply: [{ key: string; confirm?: boolean }, Receipt];
  progress: [{ key: string }, Progress];
  schedules: [
    { stamp: string | null },
    { same?: undefined; rows: Schedule[]; left_out: number; stamp: string } | { same: true },
  ];
  targets: [object, { versions: string[]; queues: string[] }];
}
export type Kind = keyof Messages;
export type Question<K extends Kind> = Messages[K][0];
export type Answer<K extends Kind> = Messages[K][1];
/** Ask the kernel; null where it failed, which is then shown, or where a later question replaced it. */
export type Ask = <K extends Kind>(
  kind: K, question: Question<K>, lane?: string,
) => Promise<Answer<K> | null>;
export interface ErrorAnswer {
  kind: "error";
  request?: string;
  type: string;
  text: string;
}

// --- a page without a kernel ---------------------------------------------------------------------

export interface Recorded {
  start: InspectStart;
  workflow_id: string;
  state: { facts: RunFacts; stamp: string; active: boolean; now: number; took: number };
  pictures: Record<string, Picture>;
  groups: Record<string, GroupDetails>;
  nodes: Record<string, NodeDetails>;
  list: NodeList;
}
