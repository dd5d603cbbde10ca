"""The messages between the two halves of a view, as ``js/types.d.ts`` declares them.

Times are milliseconds since 1970, durations milliseconds. A missing value has no key, which
JavaScript reads as ``undefined``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

Question: TypeAlias = Mapping[str, Any]
"""What the browser sends. Anything may be in it: handlers convert what they use."""
ViewOptions: TypeAlias = Mapping[str, Any]
"""The part of a question that says what the browser shows: filters, or how to draw."""
Answer: TypeAlias = Mapping[str, object]
Handler: TypeAlias = Callable[[Question], Answer]

NodeKey: TypeAlias = Hashable
"""A node's key in a graph: a workflow's ID, or a tuple such as (workflow ID, function_id)."""
JsonKey: TypeAlias = Any
"""A node's key as JSON, in which tuples are lists."""


def compact(values: Mapping[str, object]) -> Any:
    """Return a message without the keys whose value is ``None``.

    Examples
    --------
    >>> compact({"name": "order", "queue_name": None})
    {'name': 'order'}
    """
    return {name: value for name, value in values.items() if value is not None}


class WorkflowMessage(TypedDict, total=False):
    """A row of ``Client.workflows``; ``Row`` in JavaScript."""

    id: str
    status: str
    name: str
    class_name: str
    config_name: str
    app_version: str
    application_name: str
    executor_id: str
    queue_name: str
    queue_partition_key: str
    deduplication_id: str
    error_type: str
    error_message: str
    error_wrapper: str
    error_attempts: int
    failed_step: str
    failed_step_id: int
    failed_workflow_id: str
    failed_at: str
    """The step that failed in words."""
    schedule_name: str
    authenticated_user: str
    assumed_role: str
    attributes: str
    parent_workflow_id: str
    forked_from: str
    was_forked_from: bool
    repaired: bool
    """Whether it failed, and another of its chain of forks succeeded; in the list only."""
    priority: int
    recovery_attempts: int
    created_at: int
    updated_at: int
    dequeued_at: int
    completed_at: int
    delay_until: int
    workflow_deadline: int
    enqueued_at: int
    started_at: int
    duration: int
    children: int
    """Number of children; in the list only."""
    position: int
    """Place on its queue, from 1; in the list only."""
    queue_length: int


class Payload(TypedDict):
    """A decoded value as a string, and how many characters were cut from it."""

    text: str
    left_out: NotRequired[int]


class ErrorPayload(Payload):
    """A recorded error by its cause."""

    type: NotRequired[str]
    message: NotRequired[str]
    wrapper: NotRequired[str]
    attempts: NotRequired[int]
    notes: NotRequired[list[str]]
    traceback: NotRequired[str]


class ActivityMessage(TypedDict):
    """What an active workflow is doing now."""

    kind: str
    text: str
    stuck: NotRequired[bool]
    evidence: NotRequired[str]
    remedy: NotRequired[str]
    until: NotRequired[int]


class StoredPayload(TypedDict):
    """A payload as it is stored, not decoded."""

    name: str
    format: str
    length: int
    text: str


class StepMessage(TypedDict):
    """A row of ``Client.steps``; ``Step`` in JavaScript."""

    number: int
    name: str
    status: str
    started_at: NotRequired[int]
    completed_at: NotRequired[int]
    child: NotRequired[str]
    result: NotRequired[Payload]
    workflow_id: NotRequired[str]


class ForkMessage(TypedDict):
    """A fork of a workflow; ``Fork`` in JavaScript."""

    id: str
    status: str


class Payloads(TypedDict, total=False):
    """The payloads of a workflow or a step."""

    input: Payload
    output: Payload
    error: ErrorPayload


class NamedPayload(TypedDict):
    """An event."""

    name: str
    value: Payload


class StreamValue(TypedDict):
    """A value of a stream at a position."""

    offset: int
    value: Payload


class StreamMessage(TypedDict):
    """The newest values of a stream, the newest first; ``Stream`` in JavaScript."""

    name: str
    closed: bool
    values: list[StreamValue]


class ChannelsMessage(TypedDict, total=False):
    """What a workflow published: events, and values of streams."""

    events: list[NamedPayload]
    streams: list[StreamMessage]


class WorkflowDetails(Payloads, ChannelsMessage):
    """A workflow with its payloads."""

    row: WorkflowMessage
    forks: NotRequired[list[ForkMessage]]


class StepsPage(TypedDict):
    """Some steps of a workflow, and whether more follow."""

    steps: list[StepMessage]
    more_steps: bool


class WorkflowWithSteps(WorkflowDetails, StepsPage):
    """What an expanded row of the list shows."""


class ChildrenMessage(TypedDict):
    """The children of a workflow; ``Children`` in JavaScript."""

    rows: list[WorkflowMessage]
    left_out: int


class NodeSummary(TypedDict, total=False):
    """A node of a graph in short, as lists and pictures name it; ``GraphNode`` in JavaScript."""

    ref: str
    """Identifies the node's element in a picture."""
    key: JsonKey
    kind: str
    name: str
    status: str
    workflow_id: JsonKey
    number: int
    operation: str
    group: str
    title: str
    """How a picture names a group: "13 × process_*_document"."""
    of: str
    count: int
    levels: int
    difference: str
    first: JsonKey
    second: JsonKey
    error: str
    error_message: str
    error_attempts: int
    duration: int
    took: str
    """The duration as a string, where the steps refine what the row says."""
    since: int
    """When a workflow that is running started."""
    depth: int
    """Depth in the tree, and times: in the list of nodes only."""
    started_at: int
    completed_at: int
    created_at: int
    in_seconds: bool
    """Whether the start is known to the second only."""


class NodeList(TypedDict):
    """All workflows and steps of a run, in the order of the tree."""

    rows: list[NodeSummary]
    left_out: int


class PictureMessage(TypedDict):
    """An SVG, the nodes in it, and its edges as pairs of ``ref``; ``Picture`` in JavaScript."""

    svg: str
    nodes: list[NodeSummary]
    edges: list[list[str]]
    overview: NotRequired[bool]
    """Whether it is the process map of the run; absent for a timeline."""


class RunFacts(TypedDict):
    """What the header of a run shows."""

    row: WorkflowMessage
    forks: list[ForkMessage]
    failures: list[NodeSummary]
    more_failures: int
    counts: str
    took: str
    unstarted: str
    active: bool


class WorkflowNodeDetails(WorkflowDetails):
    """The details of a workflow node."""

    kind: Literal["workflow"]


class StepDetails(Payloads):
    """The details of a step node."""

    kind: Literal["step"]
    step: StepMessage
    attempts: NotRequired[int]


class GroupDetails(NodeSummary, total=False):
    """The details of a group of folded nodes."""

    statuses: dict[str, int]
    inside: int
    """Failures below the members."""
    members: list[NodeSummary]
    left_out: int
    failed_step: str
    errors: dict[str, int]
    """Of the nodes of a process map: how many members have each error."""
    failed: list[str]
    """The workflows that failed and can be forked or repaired together."""
    duration_min: int
    duration_median: int
    duration_max: int
    duration_total: int


class RunningDetails(TypedDict):
    """The details of the node that stands for what a running workflow does now."""

    kind: Literal["running"]
    name: str | None
    workflow_id: str | None


NodeDetails: TypeAlias = WorkflowNodeDetails | StepDetails | GroupDetails | RunningDetails


class ComparedNodes(TypedDict, total=False):
    """A row of ``Comparison.differences``; ``ComparedRow`` in JavaScript."""

    difference: str
    kind: str
    name: str
    first: JsonKey
    second: JsonKey
    status_first: str
    status_second: str
    error_type_first: str
    error_type_second: str
    duration_first: int
    duration_second: int
    took_first: str
    """Of a workflow: its duration, as its own view shows it."""
    took_second: str


class ComparisonMessage(TypedDict):
    """Two runs compared; ``ComparisonAnswer`` in JavaScript."""

    picture: PictureMessage
    first: str
    second: str
    counts: dict[str, int]
    rows: list[ComparedNodes]
    left_out: int


class BoardQueue(TypedDict, total=False):
    """A queue on the board."""

    name: str
    partition: str
    oldest: int
    rate_max: int
    rate_period: float
    enqueued: int
    running: int
    delayed: int
    concurrency: int
    worker_concurrency: int


class BoardFailure(TypedDict, total=False):
    """Workflows on the board that failed for one cause; ``ids`` are repaired by one click."""

    name: str
    step: str
    type: str
    message: str
    count: int
    unaddressed: int
    ancestors: int
    versions: list[str]
    last: int
    id: str
    ids: list[str]


class BoardDurations(TypedDict, total=False):
    """How long the runs of one workflow took."""

    name: str
    count: int
    p50: int
    p99: int
    coarse: bool
    """Whether the durations are accurate to a second only."""


class BoardCauses(TypedDict):
    """What failed and how long workflows took: they cost more than the other facts."""

    failures: list[BoardFailure]
    more_failures: int
    durations: list[BoardDurations]
    more_durations: int


class BoardFinding(TypedDict, total=False):
    """A finding of the diagnosis; ``action`` on ``targets`` with ``options`` would help."""

    severity: str
    subject: str
    full_subject: str
    says: str
    evidence: str
    remedy: str
    affected: int
    since: int
    ids: list[str]
    action: str
    targets: list[str]
    options: dict[str, Any]


class BoardFacts(TypedDict):
    """What the board shows: ``bars`` buckets of ``width`` ms from ``begin``, and the queues."""

    begin: int
    width: int
    bars: int
    active: dict[str, int]
    series: dict[str, list[int]]
    queues: list[BoardQueue]
    more_queues: int


class ActionAvailability(TypedDict):
    """On how many workflows an action would act, and the reason if on none."""

    count: int
    why: str
    waits: NotRequired[int]
    """To send only: how many appear to wait for a message."""
    topics: NotRequired[list[str]]
    """To send only: the topics that earlier runs received there."""


class PlanMessage(TypedDict):
    """A plan; ``Plan`` in JavaScript."""

    key: str
    counts: dict[str, int]
    rows: list[dict[str, str]]
    left_out: int
    unlikely: int
    will_run: NotRequired[str]
    """Whether an executor will run them, where that is the same for all; the rows then omit it."""
    kinds: list[str]
    """What would be changed, by start step or name."""
    notes: list[str]
    confirm: bool
    """Whether the action is confirmed twice."""
    problem: str
    """Why nothing of it would be done."""
    code: str


class ReceiptMessage(TypedDict):
    """A receipt; ``Receipt`` in JavaScript."""

    key: str
    action: str
    counts: dict[str, int]
    ok: bool
    rows: list[dict[str, str]]
    left_out: int
    notes: list[str]
    follows: bool
    """Whether its workflows can be followed until they have ended."""


class ProgressMessage(TypedDict):
    """How far the workflows of a receipt are; ``Progress`` in JavaScript."""

    text: str
    ended: bool
    statuses: dict[str, str]


class RunState(TypedDict):
    """The reading of a run in a page without a kernel."""

    facts: RunFacts
    stamp: str
    active: bool
    now: int
    took: int


class RecordedRun(TypedDict):
    """All answers about a run that a page without a kernel holds; ``Recorded`` in JavaScript."""

    start: dict[str, object]
    workflow_id: str
    state: RunState
    pictures: dict[str, PictureMessage]
    groups: dict[str, Answer]
    nodes: dict[str, Answer]
    list: NodeList
