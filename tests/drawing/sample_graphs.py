"""Execution graphs made by hand, for what no database of the tests holds."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pandas as pd

START = pd.Timestamp("2026-03-01T10:00:00.123Z")


def at(seconds: float) -> pd.Timestamp:
    """Return the instant that many seconds after the sample began."""
    return START + pd.Timedelta(seconds=seconds)


class Sample:
    """Builds a graph: workflows, then their steps."""

    def __init__(self, root: str) -> None:
        self.graph: nx.DiGraph[Any] = nx.DiGraph(root=root, database="sample", read_at=at(100_000))

    def workflow(
        self,
        key: str,
        name: str,
        begin: float,
        end: float | None,
        status: str = "SUCCESS",
        queued: float = 0.0,
        **more: Any,
    ) -> str:
        """Add a workflow."""
        attributes: dict[str, Any] = {
            "kind": "workflow",
            "workflow_id": key,
            "name": name,
            "status": status,
            "created_at": at(begin - queued),
            **more,
        }
        if status == "ENQUEUED":
            attributes["enqueued_at"] = at(begin - queued)
        else:
            attributes["started_at"] = at(begin)
        if queued:
            attributes |= {"queue_name": "work", "dequeued_at": at(begin)}
            attributes["enqueued_at"] = at(begin - queued)
        if end is not None:
            attributes |= {"completed_at": at(end), "duration": pd.Timedelta(seconds=end - begin)}
            attributes["ended_at"] = at(end)
        self.graph.add_node(key, **attributes)
        return key

    def step(
        self,
        owner: str,
        number: int,
        name: str,
        begin: float,
        end: float,
        *,
        after: Any = None,
        status: str = "SUCCESS",
        operation: str = "step",
        **more: Any,
    ) -> tuple[str, int]:
        """Add a step, after a node or a list of nodes."""
        key = (owner, number)
        self.graph.add_node(
            key,
            kind="step",
            workflow_id=owner,
            function_id=number,
            name=name,
            status=status,
            operation=operation,
            started_at=at(begin),
            completed_at=at(end),
            duration=pd.Timedelta(seconds=end - begin),
            **more,
        )
        before = after if isinstance(after, list) else [owner if after is None else after]
        for each in before:
            self.graph.add_edge(each, key, kind="first" if each == owner else "next")
        return key


def concurrent() -> nx.DiGraph[Any]:
    """Twenty steps: a stage of eight at once, one of six, and some on end."""
    sample = Sample("report-1")
    sample.workflow("report-1", "build_report", 0, 9.4, queued=1.8)
    last: Any = None
    for number, (name, begin, end) in enumerate(
        [("load_settings", 0.0, 0.2), ("list_sources", 0.2, 0.9)], start=1
    ):
        last = sample.step("report-1", number, name, begin, end, after=last)
    fetched = [
        sample.step("report-1", 3 + n, f"fetch_{word}", 1.0, 1.6 + 0.35 * n, after=last)
        for n, word in enumerate(
            ["orders", "stock", "returns", "prices", "clicks", "mails", "shops", "rates"]
        )
    ]
    cleaned = [
        sample.step("report-1", 11 + n, f"clean_{n + 1}", 4.2, 4.9 + 0.3 * n, after=fetched)
        for n in range(6)
    ]
    joined = sample.step("report-1", 17, "join", 6.5, 7.7, after=cleaned)
    drawn = sample.step("report-1", 18, "draw_charts", 7.7, 8.9, after=joined)
    stored = sample.step("report-1", 19, "store", 8.9, 9.2, after=drawn)
    sample.step("report-1", 20, "DBOS.send", 9.2, 9.3, after=stored, operation="send")
    return sample.graph


def failing() -> nx.DiGraph[Any]:
    """Three levels of workflows, the failure in the lowest."""
    sample = Sample("order-17")
    error = {
        "error_type": "shop.errors.CourierError",
        "error_message": "nobody drives to Kraków today",
        "on_failing_path": True,
        "status": "ERROR",
    }
    sample.workflow("order-17", "order", 0, 5.2, **error)
    sample.workflow("order-17-3", "fulfil", 1.9, 5.1, parent="order-17", queued=0.6, **error)
    sample.workflow("order-17-3-2", "ship", 2.9, 4.9, parent="order-17-3", **error)
    price = sample.step("order-17", 1, "price", 0.0, 0.3)
    charge = sample.step("order-17", 2, "charge", 0.3, 1.2, after=price)
    start = sample.step(
        "order-17", 3, "fulfil", 1.2, 1.3, after=charge, operation="start_child",
        child_workflow_id="order-17-3",
        on_failing_path=True,
    )  # fmt: skip
    wait = sample.step(
        "order-17", 4, "DBOS.getResult", 1.3, 5.15, after=start, operation="get_result",
        child_workflow_id="order-17-3", **error,
    )  # fmt: skip
    reserve = sample.step("order-17-3", 1, "reserve", 1.9, 2.6)
    ship = sample.step(
        "order-17-3", 2, "ship", 2.6, 2.7, after=reserve, operation="start_child",
        child_workflow_id="order-17-3-2",
        on_failing_path=True,
    )  # fmt: skip
    wait_ship = sample.step(
        "order-17-3", 3, "DBOS.getResult", 2.7, 5.0, after=ship, operation="get_result",
        child_workflow_id="order-17-3-2", **error,
    )  # fmt: skip
    pick = sample.step("order-17-3-2", 1, "pick_courier", 2.9, 3.4)
    nap = sample.step("order-17-3-2", 2, "DBOS.sleep", 3.4, 4.4, after=pick, operation="sleep")
    sample.step("order-17-3-2", 3, "book_courier", 4.4, 4.8, after=nap, **error)
    for tail, head, kind in (
        (start, "order-17-3", "starts"),
        ("order-17-3", wait, "returns"),
        (ship, "order-17-3-2", "starts"),
        ("order-17-3-2", wait_ship, "returns"),
    ):
        sample.graph.add_edge(tail, head, kind=kind)
    return sample.graph


def many(children: int, failed: int = 2) -> nx.DiGraph[Any]:
    """Return a workflow with many children of three steps each; the last ones failed."""
    sample = Sample("batch")
    total = 4.0 + children * 0.02
    sample.workflow("batch", "import_all", 0, total + 1)
    last: Any = None
    starts, ends = [], []
    for n in range(children):
        begin = 0.5 + n * 0.02
        took = 0.4 + (n * 37 % 100) / 40
        bad = n >= children - failed
        key = sample.workflow(
            f"batch-{n}", "import_one", begin, begin + took, "ERROR" if bad else "SUCCESS",
            queued=0.05, parent="batch",
            **({"error_type": "ValueError", "error_message": "no such row"} if bad else {}),
        )  # fmt: skip
        before: Any = None
        for number, name in enumerate(("fetch", "check", "store"), start=1):
            piece = took / 3
            before = sample.step(
                key, number, name, begin + piece * (number - 1), begin + piece * number,
                after=before, status="ERROR" if bad and number == 3 else "SUCCESS",
            )  # fmt: skip
        starts.append((begin, key))
        ends.append(key)
    for number, (begin, key) in enumerate(starts, start=1):
        last = sample.step(
            "batch", number, "import_one", begin - 0.06, begin - 0.055,
            after=last, operation="start_child", child_workflow_id=key,
        )  # fmt: skip
        sample.graph.add_edge(last, key, kind="starts")
    for number, key in enumerate(ends, start=children + 1):
        last = sample.step(
            "batch", number, "DBOS.getResult", total - 0.5, total,
            after=last, operation="get_result", child_workflow_id=key,
        )  # fmt: skip
        sample.graph.add_edge(key, last, kind="returns")
    return sample.graph


HOSTILE = (
    "<script>window.__pwned=1</script>",
    "</title></svg><img src=x onerror='window.__pwned=1'>",
    "<b>bold</b>",
    "\"quoted\" 'single' `back`",
    "back\\slash \\N \\G \\L \\n \\l",
    "two\nlines\tand\r\nmore",
    "\x00\x07\x1b[31mred\x1b[0m",
    "]]><![CDATA[<script>window.__pwned=1</script>",
    "&lt;script&gt; &amp; &#60;",
    "{{ 7 * 7 }} {% raw %} ${1} %s",
    "javascript:window.__pwned=1",
    "مرحبا بالعالم",
    "\u202egnp.exe\u202c",
    "👩‍👩‍👧‍👦 🚚 family",
    "山田 太郎の注文を処理する",
    "Z" + "\u0301\u0302\u0303" * 200 + "algo",
    "A" * 100_000,
    "W" * 300,
    "",
    "<",
    "<>",
    "a;b{}[]->--|",
)
"""Names that would be markup, or would break the layout, of a careless picture."""


def hostile() -> nx.DiGraph[Any]:
    """Return a graph in which every text is hostile."""
    sample = Sample(HOSTILE[0])
    sample.workflow(
        HOSTILE[0], HOSTILE[1], 0, 10, "ERROR",
        error_type=HOSTILE[2], error_message=HOSTILE[0], queue_name=HOSTILE[1],
        app_version=HOSTILE[0], executor_id=HOSTILE[3], on_failing_path=True,
    )  # fmt: skip
    last: Any = None
    for number, text in enumerate(HOSTILE, start=1):
        last = sample.step(
            HOSTILE[0], number, text, number / 10, number / 10 + 0.05, after=last,
            status="ERROR", error_type=text, on_failing_path=True,
            # Half a character, which a pickled message may hold.
            error_message=f"{text} \ud800",
        )  # fmt: skip
    start = sample.step(
        HOSTILE[0],
        99,
        HOSTILE[0],
        4,
        4.1,
        after=last,
        operation="start_child",
        child_workflow_id="?",
    )
    for number, text in enumerate(HOSTILE[1:]):
        if text:
            sample.workflow(text, text, 5, 6, parent=HOSTILE[0])
            sample.graph.add_edge(start, text, kind="starts")
            sample.step(text, 1, HOSTILE[number], 5, 6)
    return sample.graph
