"""The Python half of the console: list, board, schedules and one run in one view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import traitlets

from dbos_notebook.drawing import svg
from dbos_notebook.errors import FilterError
from dbos_notebook.text import sanitize
from dbos_notebook.widgets import bundle
from dbos_notebook.widgets.base import View
from dbos_notebook.widgets.board import Board
from dbos_notebook.widgets.controls import Controls
from dbos_notebook.widgets.explore import Explore
from dbos_notebook.widgets.inspect import Inspect
from dbos_notebook.widgets.messages import Answer, Question

if TYPE_CHECKING:
    from dbos_notebook.control.controller import Controller
    from dbos_notebook.control.receipt import Receipt
    from dbos_notebook.store import Store

VIEWS = ("list", "board", "run", "schedules")
_SHARED_TRAITS = {
    "list": ("selected", "_select_all", "live"),
    "board": ("window", "live"),
    "run": ("workflow_id", "_selected", "live"),
    "schedules": (),
}
"""The traits of each part that the browser reads and sets, through one trait of the console."""


def _style() -> str:
    """Return the style sheet of all parts, with the colors of pictures in light and in dark."""
    light = svg.rules(".dn-inspect .dn-svg-view", "light")
    dark = svg.rules('.dn-inspect[data-theme="dark"] .dn-svg-view', "dark")
    parts = bundle.style("explore", "board", "inspect", "console")
    return "\n".join([bundle.style("base"), light, dark, parts])


class Console(View):
    """List, board, schedules and one run in one view. Create it with :meth:`Client.open`.

    Attributes
    ----------
    view : str
        What is shown: ``"list"``, ``"board"``, ``"run"`` or ``"schedules"``. May be set.
    workflow_id : str
        The run that is shown, or was shown last; ``""`` if there is none. May be set: the run
        is shown.
    list : Explore
        The list, with ``.filters``, ``.frame``, ``.selection`` and ``.code``.
    board : Board
        The board, with ``.queues`` and ``.failures``.
    schedules : Controls
        The schedules.
    run : Inspect or None
        The run that is shown, or was shown last, with ``.workflow``, ``.graph`` and
        ``.selection``.
    receipt : Receipt or None
        The receipt of the last action that was confirmed in the run, otherwise in the list,
        otherwise on the board.

    Examples
    --------
    >>> console = dbos_notebook.connect(example_database).open(status="ERROR")
    >>> console.view, console.list.code
    ('list', 'db.workflows(status="ERROR")')
    >>> console.workflow_id = "checkout-5-bad"
    >>> console.view, console.run.workflow.status
    ('run', 'ERROR')
    """

    _esm = bundle.module("console")
    _css = _style()

    _start = traitlets.Dict().tag(sync=True)
    _place = traitlets.Dict().tag(sync=True)
    _list = traitlets.Dict().tag(sync=True)
    _board = traitlets.Dict().tag(sync=True)
    _run = traitlets.Dict().tag(sync=True)
    _schedules = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        store: Store,
        controller: Controller,
        filters: Mapping[str, Any],
        workflow_id: str = "",
        *,
        view: str | None = None,
        live: bool = True,
        page_size: int = 50,
        sync_url: bool = False,
    ) -> None:
        self._controller = controller
        self._live = live
        self._parts: dict[str, View] = {}
        self._receives = False
        first = view or ("run" if workflow_id else "list")
        if first not in VIEWS:
            raise FilterError(f"view={view!r} does not exist. Use one of {VIEWS}.")
        if first == "run" and not workflow_id:
            raise FilterError("view='run' needs a workflow. Call db.open(workflow_id).")
        self.list = Explore(
            store, controller, filters, live=live, page_size=page_size, embedded=True
        )
        self.board = Board(store, controller, live=live, embedded=True)
        self.run: Inspect | None = None
        self.schedules = Controls(store, controller, None, schedules=True, embedded=True)
        start = {
            "sync_url": sync_url,
            "location": store.label,
            "list": self.list._start,
            "board": self.board._start,
            "schedules": self.schedules._start,
        }
        # In a page with a kernel of its own, HTML from when that started would be out of date.
        self._has_fallback = not sync_url
        super().__init__(store, _start=start, _place={"view": "list"})
        self._add_part("list", self.list)
        self._add_part("board", self.board)
        self._add_part("schedules", self.schedules)
        self._handlers = {"open": self._on_open}
        if workflow_id:
            # Read before the view is displayed, so that the cell raises an error for an unknown ID.
            self._open_run(workflow_id)
        self.view = first

    def _add_part(self, name: str, part: View) -> None:
        """Let the browser read and set a part's traits through the trait ``_<name>``."""
        traits = _SHARED_TRAITS[name]

        def publish(_change: object = None) -> None:
            setattr(self, f"_{name}", {trait: getattr(part, trait) for trait in traits})

        def receive(change: Mapping[str, Any]) -> None:
            self._receives = True
            try:
                for trait in traits:
                    if trait in change["new"] and getattr(part, trait) != change["new"][trait]:
                        setattr(part, trait, change["new"][trait])
            finally:
                self._receives = False

        publish()
        self._parts[name] = part
        self.observe(receive, f"_{name}")
        if traits:
            part.observe(publish, list(traits))

    def _open_run(self, workflow_id: str) -> Inspect:
        """Show another run in the part of runs, which is created for the first one."""
        if self.run is None:
            self.run = Inspect(
                self._store, self._controller, workflow_id, live=self._live, embedded=True
            )
            self._add_part("run", self.run)
            self.run.observe(self._on_run_changed, "workflow_id")
        else:
            self.run.show(workflow_id)
        return self.run

    def _on_run_changed(self, _change: Mapping[str, Any]) -> None:
        # The browser has navigated already when it sets the trait.
        if not self._receives:
            self.view = "run"

    @property
    def view(self) -> str:
        """What is shown: ``"list"``, ``"board"``, ``"run"`` or ``"schedules"``. May be set."""
        view: str = self._place["view"]
        return view

    @view.setter
    def view(self, view: str) -> None:
        if view not in VIEWS:
            raise FilterError(f"view={view!r} does not exist. Use one of {VIEWS}.")
        if view == "run" and self.run is None:
            raise FilterError("No run is open. Set workflow_id to show one.")
        # The number makes two changes to the same place differ: the browser may have left it.
        number = int(self._place.get("number", 0)) + 1
        self._place = {"view": view, "id": self.workflow_id, "by": "kernel", "number": number}

    @property
    def workflow_id(self) -> str:
        """The run that is shown, or was shown last; ``""`` if there is none. May be set."""
        return self.run.workflow_id if self.run else ""

    @workflow_id.setter
    def workflow_id(self, workflow_id: str) -> None:
        self._open_run(workflow_id)
        self.view = "run"

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of the last action in the run, otherwise in the list, otherwise the board."""
        return (self.run and self.run.receipt) or self.list.receipt or self.board.receipt

    def _recipient(self, message: Mapping[str, object]) -> View:
        """Return the part that a message from the browser is for, or the console itself."""
        return self._parts.get(str(message.get("to")), self)

    def _on_open(self, message: Question) -> Answer:
        """Read a run, which may be gone, and create the part of runs for the first one."""
        workflow_id = str(message["id"])
        if self.run:
            self.run.read(workflow_id)
        run = self.run or self._open_run(workflow_id)
        return {"start": run._start, "traits": self._run}

    # --- HTML ------------------------------------------------------------------------------------

    def _shown(self) -> View:
        return self._parts[self.view]

    def static_html(self) -> str:
        """Return what is shown as HTML that needs no kernel."""
        return self._shown().static_html()

    def _html_page(self) -> str:
        return self._shown()._html_page()

    def __repr__(self) -> str:
        shown = self.workflow_id if self.view == "run" else self.view
        return f"<Console {self._store.location}: {sanitize(shown)}>"
