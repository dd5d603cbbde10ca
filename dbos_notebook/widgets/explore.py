"""The Python half of the list of workflows: pages, search, details, and its actions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import traitlets

from dbos_notebook.control.failure_analysis import fork_chains
from dbos_notebook.database.schema_changes import repeat_if_changed
from dbos_notebook.errors import FilterError
from dbos_notebook.status import ACTIVE_STATUSES, FAILED_STATUSES
from dbos_notebook.tables import aggregates, frames, listings, pages
from dbos_notebook.tables.filters import check_filters
from dbos_notebook.widgets import (
    bundle,
    details,
    html_export,
    payload_text,
    query_form,
    serialize,
)
from dbos_notebook.widgets.base import View
from dbos_notebook.widgets.controls import Actions
from dbos_notebook.widgets.messages import (
    Answer,
    ChildrenMessage,
    Handler,
    Question,
    ViewOptions,
    WorkflowMessage,
)

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.controller import Controller
    from dbos_notebook.control.receipt import Receipt
    from dbos_notebook.database.reader import Session
    from dbos_notebook.store import Store

FIRST_SEARCH_ROWS, MAX_SEARCH_ROWS = 5_000, 80_000
"""Rows that one message searches. The first message is quick, so that matches appear while the
user types; each further one searches four times as many rows, for at most about 0.15 s."""
SEARCH_GROWTH = 4
MAX_COUNTED_ROWS = 20_000
"""Up to this number of workflows, those that a search finds are counted: it reads every row."""
MAX_CHOICES = 100
MAX_CHILDREN = 500
_CHOICE_COLUMNS = {
    name: "authenticated_user" if name == "user" else name for name in query_form.CHOICE_FILTERS
}


class Explore(View):
    """A searchable, sortable, expandable list of workflows. Create it with :meth:`Client.explore`.

    Attributes
    ----------
    selected : list of str
        IDs of the selected rows. May be set. If "Select all … that match" was clicked, these are
        the rows of the page, and ``selection`` has all rows that match.
    live : bool
        Whether the browser refreshes every two seconds while the list is visible. May be set.
    frame : pandas.DataFrame
        The rows on the page, in their order, with the columns of :meth:`Client.workflows`.
    selection : pandas.DataFrame
        The selected rows, as they are in the database now.
    filters : dict
        The filters that are set, as arguments of :meth:`Client.workflows`.
    code : str
        Python that returns all rows of the list, for a client called ``db``.
    receipt : Receipt or None
        The receipt of the last action that was confirmed in this view.

    Examples
    --------
    >>> widget = dbos_notebook.connect(example_database).explore(status="ERROR")
    >>> print(widget.code)
    db.workflows(status="ERROR")
    >>> widget.frame["status"].unique().tolist()
    ['ERROR']
    """

    _esm = bundle.module("explore")
    _css = bundle.style("base", "explore")

    selected = traitlets.List(traitlets.Unicode()).tag(sync=True)
    live = traitlets.Bool(default_value=False).tag(sync=True)
    _select_all = traitlets.Bool(default_value=False).tag(sync=True)
    _start = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        store: Store,
        controller: Controller,
        filters: Mapping[str, Any],
        *,
        live: bool = False,
        tree: bool = False,
        page_size: int = query_form.DEFAULT_PAGE_SIZE,
        embedded: bool = False,
    ) -> None:
        if not query_form.is_page_size(page_size):
            raise FilterError(
                f"page_size={page_size!r} is not supported. Use an integer from 1 to "
                f"{query_form.MAX_PAGE_SIZE:,}."
            )
        # Checked before the list is displayed, so that the cell raises an error for a wrong filter.
        checked = check_filters(filters)
        for name in query_form.TIME_FILTERS:
            if name in checked:
                checked[name] = filters[name]  # an age remains relative to now
        checked = {
            name: value.isoformat() if hasattr(value, "isoformat") else value
            for name, value in checked.items()
        }
        form, self._fixed = query_form.split_filters(checked)
        queued = bool(self._fixed.pop("queues_only", False))
        mode = "queued" if queued else "tree" if tree else "flat"
        self._view: ViewOptions = {**form, "mode": mode, "size": page_size}
        self._frame: pd.DataFrame | None = None
        self._actions = Actions(store, controller)
        start = {
            "view": self._view,
            "fixed": [f"{name}={value!r}"[:100] for name, value in self._fixed.items()],
            "sizes": sorted({*query_form.PAGE_SIZES, page_size}),
            "max_all": query_form.MAX_ALL,
            "has_parents": store.catalog.has("workflow_status", "parent_workflow_id"),
            "has_attributes": store.catalog.has("workflow_status", "attributes"),
            "location": store.label,
            "forbidden": self._actions.forbidden(),
            "read_only": controller.read_only,
        }
        super().__init__(store, embedded=embedded, live=live, _start=start)
        self._handlers = {
            "page": self._on_page,
            "children": self._on_children,
            "details": self._on_details,
            "steps": self._on_steps,
            "activities": self._on_activities,
            "choices": self._on_choices,
            "code": self._on_code,
            "payload": lambda message: payload_text.answer(self._store, message),
            **self._actions.handlers,
            "possible": self._with_all_ids("possible"),
            "plan": self._with_all_ids("plan"),
        }

    @traitlets.validate("selected")
    def _validate_selected(self, proposal: Any) -> list[str]:
        return list(dict.fromkeys(proposal["value"]))[: query_form.MAX_SELECTED]

    @property
    def filters(self) -> dict[str, Any]:
        """The filters that are set: ``db.workflows(**widget.filters)`` returns all matches."""
        return query_form.to_filters(self._view) | self._fixed

    @property
    def frame(self) -> pd.DataFrame:
        """The rows on the page, in their order, with the columns of :meth:`Client.workflows`."""
        if self._frame is None:
            self._frame = self._read_first_page()
        return self._frame

    @property
    def selection(self) -> pd.DataFrame:
        """The selected rows, as they are in the database now."""
        if self._select_all:
            return self._store.workflows(self._matching_ids(self._view), limit=None)
        return self._store.workflows(list(self.selected), limit=None)

    @property
    def code(self) -> str:
        """Python that returns all rows of the list, for a client called ``db``."""
        return query_form.list_code(self._view, self._fixed)

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of the last action that was confirmed in this view, if any."""
        return self._actions.receipt

    # --- reading ---------------------------------------------------------------------------------

    @repeat_if_changed
    def _read_first_page(self) -> pd.DataFrame:
        with self._store.session() as session:
            return self._read_page(session, self._view).frame

    def _read_page(
        self,
        session: Session,
        view: ViewOptions,
        after: Any = None,
        limit: int | None = None,
        part: int = 0,
    ) -> pages.Page:
        filters = check_filters(query_form.to_filters(view) | self._fixed)
        column, descending = query_form.sort_order(view)
        growth = SEARCH_GROWTH ** max(0, min(part, 8))
        return pages.page(
            session,
            self._store.queries,
            filters,
            pages.SortOrder(column, descending, tuple(after or ())),
            max(1, min(limit or query_form.MAX_PAGE_SIZE, query_form.page_size(view))),
            roots_only=view.get("mode") == "tree",
            max_scanned_rows=(
                min(MAX_SEARCH_ROWS, FIRST_SEARCH_ROWS * growth) if "search" in filters else None
            ),
        )

    def _rows(self, session: Session, frame: pd.DataFrame) -> list[WorkflowMessage]:
        queries = self._store.queries
        rows = serialize.workflow_rows(frame)
        children = pages.child_counts(session, queries, frame["workflow_id"].tolist())
        positions = pages.queue_positions(session, queries, frame)
        related = frame["was_forked_from"].fillna(value=False) | frame["forked_from"].notna()
        failed = frame[related & frame["status"].isin(FAILED_STATUSES)]["workflow_id"].tolist()
        chains = fork_chains(session, queries, failed) if failed else {}
        for row in rows:
            if count := children.get(row["id"]):
                row["children"] = count
            chain = chains.get(row["id"])
            if chain is not None and chain.repaired_by:
                row["repaired"] = True
            if position := positions.get(row["id"]):
                row["position"], row["queue_length"] = position
        return rows

    # --- messages --------------------------------------------------------------------------------

    @repeat_if_changed
    def _on_page(self, message: Question) -> Answer:
        started = time.perf_counter()
        view = message.get("view") or {}
        part = int(message.get("part") or 0)
        with self._store.session() as session:
            page = self._read_page(session, view, message.get("after"), message.get("limit"), part)
            rows = self._rows(session, page.frame)
            # In the same snapshot, so that they agree with the rows.
            counts = self._counts(session, view) if message.get("counts") else {}
        self._view = dict(view)
        # The parts of a search are one page together.
        before = self._frame if part else None
        self._frame = page.frame if before is None else frames.concat_frames(before, page.frame)
        answer: dict[str, object] = {
            "rows": rows,
            "more": page.more,
            "last": page.last,
            "searched_to": page.searched_to,
        }
        stamp = serialize.stamp(answer)
        if message.get("stamp") == stamp:
            answer = {"same": True}
        took = round((time.perf_counter() - started) * 1000)
        now = round(time.time() * 1000)
        return {**answer, **counts, "stamp": stamp, "took": took, "now": now}

    def _counts(self, session: Session, view: ViewOptions) -> dict[str, object]:
        """Count workflows by status, with all filters but that of the status."""
        started = time.perf_counter()
        filters = query_form.to_filters(view) | self._fixed
        chosen = filters.pop("status", None)
        if chosen and filters.get("queues_only"):
            # Which is otherwise a filter of the active statuses.
            filters["status"] = list(dict.fromkeys([*ACTIVE_STATUSES, *chosen]))
        reads_all_rows = {"search", "error", "attributes"} & filters.keys()
        if reads_all_rows and pages.has_more_rows(session, self._store.queries, MAX_COUNTED_ROWS):
            return {"counts": None}
        frame = aggregates.counts(
            session, self._store.queries, "status", None, "created_at", check_filters(filters)
        )
        counts = dict(zip(frame["status"].astype(str), map(int, frame["count"]), strict=True))
        took = round((time.perf_counter() - started) * 1000)
        return {"counts": counts, "count_took": took}

    def _matching_ids(self, view: ViewOptions) -> list[str]:
        """Return the IDs of the workflows that match, the first ``MAX_ALL`` of the list."""
        filters = check_filters(query_form.to_filters(view) | self._fixed)
        order = pages.SortOrder(*query_form.sort_order(view))
        roots_only = view.get("mode") == "tree"
        page = self._store.read(
            pages.page, filters, order, query_form.MAX_ALL, roots_only=roots_only
        )
        return [str(key) for key in page.frame["workflow_id"]]

    def _with_all_ids(self, kind: str) -> Handler:
        """Return an action's handler that finds the IDs by the filters if all are selected."""
        handler = self._actions.handlers[kind]

        def on_message(message: Question) -> Answer:
            if message.get("select_all"):
                ids = self._matching_ids(message.get("view") or self._view)
                message = {**message, "ids": ids}
            return handler(message)

        return on_message

    @repeat_if_changed
    def _on_children(self, message: Question) -> ChildrenMessage:
        with self._store.session() as session:
            tree = listings.tree(session, self._store.queries, [str(message["id"])], 1)
            children = tree[tree["depth"] == 1]
            rows = self._rows(session, children.head(MAX_CHILDREN))
        return {"rows": rows, "left_out": max(0, len(children) - MAX_CHILDREN)}

    def _on_details(self, message: Question) -> Answer:
        answer = details.workflow_with_steps(self._store, str(message["id"]))
        stamp = serialize.stamp(answer)
        if message.get("stamp") == stamp:
            return {"same": True}
        return {**answer, "stamp": stamp, "now": round(time.time() * 1000)}

    def _on_steps(self, message: Question) -> Answer:
        return details.steps_page(self._store, str(message["id"]), int(message["after"]))

    def _on_activities(self, message: Question) -> Answer:
        return {"activities": details.activities(self._store, list(map(str, message["ids"])))}

    def _on_choices(self, _message: Question) -> Answer:
        columns = list(_CHOICE_COLUMNS.values())
        values = self._store.read(pages.frequent_values, columns, MAX_CHOICES)
        return {"choices": {name: values[column] for name, column in _CHOICE_COLUMNS.items()}}

    def _on_code(self, message: Question) -> Answer:
        if message.get("selection") and not self._select_all:
            ids = ", ".join(map(query_form.literal, self.selected))
            return {"text": f"db.workflows([{ids}])"}
        return {"text": query_form.list_code(message.get("view") or {}, self._fixed)}

    # --- HTML ------------------------------------------------------------------------------------

    def static_html(self) -> str:
        """Return the first rows as a table that needs no kernel, without payloads."""
        return html_export.listing(self._store, self.frame, self.code)

    def _html_page(self) -> str:
        return html_export.listing_page(self._store, self.frame, self.code)

    def __repr__(self) -> str:
        return f"<Explore {self._store.location}: {self.code}>"
