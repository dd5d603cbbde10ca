"""The list of workflows: its Python half. Pages, details and choices are read as they are asked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import traitlets

from dbos_notebook.database.reader import repeat_if_changed
from dbos_notebook.errors import FilterError
from dbos_notebook.tables import aggregates, frames, listings, pages
from dbos_notebook.tables.filters import check_filters
from dbos_notebook.widgets import bundle, details, html_export, query_form, serialize
from dbos_notebook.widgets.base import View
from dbos_notebook.widgets.controls import Actions

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.controller import Controller
    from dbos_notebook.control.receipt import Receipt
    from dbos_notebook.database.reader import Session
    from dbos_notebook.store import Store

FIRST_LOOK, LOOK_THROUGH = 5_000, 80_000
"""Rows that one message looks through for a text. The first few are found while one still types;
each further message looks through four times as many, up to some 0.15 s, so that nothing is held
up."""
MOST_CHOICES = 100
MOST_CHILDREN = 500
_COLUMNS = {"user": "authenticated_user"}


class Explore(View):
    """A searchable, sortable, expandable list of workflows. Make it with ``Client.explore``.

    Attributes
    ----------
    selected
        IDs of the rows that are ticked; may be set.
    live
        Whether the browser asks again every two seconds while it shows the list; may be set.

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
    _start = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        store: Store,
        controller: Controller,
        filters: Mapping[str, Any],
        *,
        live: bool = False,
        tree: bool = False,
        page_size: int = query_form.SIZES[1],
    ) -> None:
        if page_size not in query_form.SIZES:
            raise FilterError(
                f"page_size={page_size!r} is not offered. Use one of {query_form.SIZES}."
            )
        # Before anything is shown, so that a wrong filter fails in the caller's cell.
        checked = check_filters(filters)
        # An age stays an age: the list goes on showing the last day.
        given = {
            name: filters[name] if name in query_form.TIMES else checked[name] for name in checked
        }
        given = {name: self._storable(value) for name, value in given.items()}
        shown, self._fixed = query_form.first(given)
        queued = bool(self._fixed.pop("queues_only", False))
        mode = "queued" if queued else "tree" if tree else "flat"
        self._view: dict[str, Any] = {**shown, "mode": mode, "size": page_size}
        self._frame: pd.DataFrame | None = None
        catalog = store.catalog
        start = {
            "view": self._view,
            "fixed": [f"{name}={value!r}"[:100] for name, value in self._fixed.items()],
            "sizes": list(query_form.SIZES),
            "has_parents": catalog.has("workflow_status", "parent_workflow_id"),
            "has_attributes": catalog.has("workflow_status", "attributes"),
            "location": store.label,
        }
        self._actions = Actions(store, controller)
        start["forbidden"] = self._actions.forbidden()
        start["read_only"] = controller.read_only
        super().__init__(store, live=live, _start=start)
        self._answers = {
            "page": self._page_answer,
            "children": self._children,
            "details": self._details,
            "steps": self._more_steps,
            "counts": self._counts,
            "choices": self._choices,
            "code": self._code,
            **self._actions.answers,
        }

    @staticmethod
    def _storable(value: Any) -> Any:
        return value.isoformat() if hasattr(value, "isoformat") else value

    @traitlets.validate("selected")
    def _bounded(self, proposal: Any) -> list[str]:
        return list(dict.fromkeys(proposal["value"]))[: query_form.MOST_SELECTED]

    @property
    def filters(self) -> dict[str, Any]:
        """The filters now set: ``db.workflows(**widget.filters)`` gives all rows that match."""
        return query_form.as_filters(self._view) | self._fixed

    @property
    def frame(self) -> pd.DataFrame:
        """The rows now shown, in their order, with the columns of ``Client.workflows``."""
        if self._frame is None:
            self._frame = self._first_page()
        return self._frame

    @repeat_if_changed
    def _first_page(self) -> pd.DataFrame:
        with self._store.session() as session:
            return self._read(session, self._view, ()).frame

    @property
    def selection(self) -> pd.DataFrame:
        """The rows that are ticked, as they are in the database now."""
        return self._store.workflows(list(self.selected), limit=None)

    @property
    def code(self) -> str:
        """The Python that gives all rows of the view, where the client is called ``db``."""
        return query_form.code(self._view, self._fixed)

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of the last action that was confirmed here; ``None``: there was none."""
        return self._actions.receipt

    def _read(
        self,
        session: Session,
        view: Mapping[str, Any],
        after: Any,
        limit: int | None = None,
        part: int = 0,
    ) -> pages.Page:
        filters = check_filters(query_form.as_filters(view) | self._fixed)
        sort, descending = query_form.order(view)
        looked = min(LOOK_THROUGH, FIRST_LOOK * 4 ** max(0, min(part, 8)))
        return pages.page(
            session,
            self._store.queries,
            filters,
            pages.SortOrder(sort, descending, tuple(after or ())),
            max(1, min(limit or query_form.SIZES[-1], query_form.size(view))),
            topmost=view.get("mode") == "tree",
            look_through=looked if "search" in filters else None,
        )

    @repeat_if_changed
    def _page_answer(self, message: dict[str, Any]) -> dict[str, Any]:
        view = message.get("view") or {}
        begun = time.perf_counter()
        part = int(message.get("part") or 0)
        with self._store.session() as session:
            page = self._read(session, view, message.get("after"), message.get("limit"), part)
            rows = self._rows(session, page.frame)
        self._view = dict(view)
        # A search comes in parts, which together are the page.
        before = self._frame if part else None
        self._frame = page.frame if before is None else frames.joined(before, page.frame)
        answer = {
            "rows": rows,
            "more": page.more,
            "last": page.last,
            "searched_to": page.searched_to,
        }
        stamp = serialize.stamp(answer)
        took = round((time.perf_counter() - begun) * 1000)
        state = {"stamp": stamp, "took": took, "now": round(time.time() * 1000)}
        if message.get("stamp") == stamp:
            return {"same": True, **state}
        return {**answer, **state}

    def _rows(self, session: Session, frame: pd.DataFrame) -> list[dict[str, Any]]:
        rows = serialize.workflow_rows(frame)
        queries = self._store.queries
        children = pages.child_counts(session, queries, frame["workflow_id"].tolist())
        positions = pages.queue_positions(session, queries, frame)
        for row in rows:
            if found := children.get(row["id"]):
                row["children"] = found
            if place := positions.get(row["id"]):
                row["position"], row["queue_length"] = place
        return rows

    @repeat_if_changed
    def _children(self, message: dict[str, Any]) -> dict[str, Any]:
        queries = self._store.queries
        with self._store.session() as session:
            tree = listings.tree(session, queries, [str(message["id"])], 1)
            frame = tree[tree["depth"] == 1]
            rows = self._rows(session, frame.head(MOST_CHILDREN))
        return {"rows": rows, "left_out": max(0, len(frame) - MOST_CHILDREN)}

    def _details(self, message: dict[str, Any]) -> dict[str, Any]:
        answer = details.of_workflow(self._store, str(message["id"]))
        answer["stamp"] = serialize.stamp(answer)
        answer["now"] = round(time.time() * 1000)
        return {"same": True} if message.get("stamp") == answer["stamp"] else answer

    def _more_steps(self, message: dict[str, Any]) -> dict[str, Any]:
        return details.steps(self._store, str(message["id"]), int(message["after"]))

    def _counts(self, message: dict[str, Any]) -> dict[str, Any]:
        """Count by status under the view's other filters."""
        filters = query_form.as_filters(message.get("view") or {}) | self._fixed
        filters.pop("status", None)
        begun = time.perf_counter()
        counted = self._store.read(
            aggregates.counts, "status", None, "created_at", check_filters(filters)
        )
        counts = dict(zip(counted["status"].astype(str), map(int, counted["count"]), strict=True))
        return {"counts": counts, "took": round((time.perf_counter() - begun) * 1000)}

    @repeat_if_changed
    def _choices(self, _: dict[str, Any]) -> dict[str, Any]:
        columns = {name: _COLUMNS.get(name, name) for name in query_form.CHOSEN}
        with self._store.session() as session:
            found = pages.choices(
                session, self._store.queries, list(columns.values()), MOST_CHOICES
            )
        return {"choices": {name: found[column] for name, column in columns.items()}}

    def _code(self, message: dict[str, Any]) -> dict[str, Any]:
        if message.get("selection"):
            ids = ", ".join(map(query_form.literal, self.selected))
            return {"text": f"db.workflows([{ids}])"}
        return {"text": query_form.code(message.get("view") or {}, self._fixed)}

    def static_html(self) -> str:
        """Return the first rows as a table that needs no kernel; without errors' texts."""
        return html_export.listing(self._store, self.frame, self.code)

    def _page(self) -> str:
        return html_export.listing_page(self._store, self.frame, self.code)

    def __repr__(self) -> str:
        return f"<Explore {self._store.location}: {self.code}>"
