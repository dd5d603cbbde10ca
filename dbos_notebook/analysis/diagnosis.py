"""What is wrong now: the findings of all rules, and the control calls that would act on them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from dbos_notebook.analysis import active_rules, trend_rules
from dbos_notebook.analysis.findings import (
    RULES,
    SEVERITIES,
    ControlCall,
    DiagnosisLimits,
    Finding,
    Severity,
    check_severity,
)
from dbos_notebook.errors import RefusedError
from dbos_notebook.html import environment
from dbos_notebook.tables import frames
from dbos_notebook.tables.columns import STRING_DTYPE
from dbos_notebook.text import duration, leaf_name, plural, sanitize, sanitize_lines, timestamp

if TYPE_CHECKING:
    import jinja2

    from dbos_notebook.control.plan import Plan
    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

COLUMNS = ("rule", "severity", "subject", "affected", "since", "evidence", "remedy", "plan")
SEVERITY_DTYPE = pd.CategoricalDtype(list(SEVERITIES), ordered=True)
_MARKS = {"critical": "ERROR", "warning": "ENQUEUED", "info": "CANCELLED"}
"""The status whose mark and color a severity has on the card."""
MAX_SHOWN = 30


class Diagnosis:
    """What is wrong now, the most severe first. Made by :meth:`Client.diagnose`.

    In a cell it is a card. It has a length and can be iterated over; ``diagnosis[0]`` is its first
    :class:`Finding`.

    Attributes
    ----------
    findings : tuple of Finding
        The findings.
    read_at : datetime.datetime
        When the database was read.

    Examples
    --------
    >>> diagnosis = dbos_notebook.connect(example_database).diagnose()
    >>> list(diagnosis.frame.columns)
    ['rule', 'severity', 'subject', 'affected', 'since', 'evidence', 'remedy', 'plan']
    """

    def __init__(
        self,
        findings: Sequence[Finding],
        label: str,
        make_plan: Callable[[ControlCall], Plan],
    ) -> None:
        self.findings = tuple(findings)
        self.read_at = dt.datetime.now(dt.UTC)
        self._label = label
        self._make_plan = make_plan

    @property
    def frame(self) -> pd.DataFrame:
        """The findings as a DataFrame, a row for each.

        ``rule``, ``severity`` (ordered: info < warning < critical), ``subject``, ``affected``,
        ``since`` (UTC), ``evidence``, ``remedy`` and ``plan``, the call as Python.
        """
        rows = [[getattr(each, name) for name in COLUMNS] for each in self.findings]
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        types: dict[str, Any] = dict.fromkeys(COLUMNS, STRING_DTYPE)
        types |= {"severity": SEVERITY_DTYPE, "affected": "Int64"}
        since = pd.DatetimeIndex([each.since for each in self.findings], tz="UTC").as_unit("ms")
        frame["since"] = since
        types.pop("since")
        return frames.mark_listing(frame.astype(types), "diagnose")

    @property
    def severity(self) -> Severity | None:
        """The severity of the worst finding; ``None`` if nothing was found."""
        return max((each.severity for each in self.findings), key=SEVERITIES.index, default=None)

    def at_least(self, severity: Severity) -> list[Finding]:
        """Return the findings of a severity and those above it."""
        lowest = SEVERITIES.index(check_severity(severity))
        return [each for each in self.findings if SEVERITIES.index(each.severity) >= lowest]

    def plan(self, finding: int | Finding) -> Plan:
        """Return the plan of the control call that would act on a finding; it changes nothing.

        Parameters
        ----------
        finding
            The finding, or its number from 0.

        Returns
        -------
        Plan
            Its ``apply()`` acts.

        Raises
        ------
        RefusedError
            No control call can help; ``finding.remedy`` says what can.
        """
        chosen = self.findings[finding] if isinstance(finding, int) else finding
        if chosen.call is None:
            raise RefusedError(
                f"No control call helps {chosen.subject} ({chosen.rule}). {chosen.remedy}"
            )
        return self._make_plan(chosen.call)

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, number: int) -> Finding:
        return self.findings[number]

    def __repr__(self) -> str:
        if not self.findings:
            return f"<Diagnosis of {self._label}: nothing found>"
        return f"<Diagnosis of {self._label}: {plural(len(self), 'finding')}>\n" + "\n".join(
            f"{number}  {sanitize(finding, 300)}" for number, finding in enumerate(self.findings)
        )

    def _repr_html_(self) -> str:
        now = pd.Timestamp(self.read_at)
        return (
            _templates()
            .get_template("diagnosis.html.j2")
            .render(
                label=self._label,
                read_at=timestamp(self.read_at, milliseconds=False),
                findings=[
                    {
                        "number": number,
                        "severity": each.severity,
                        "status": _MARKS[each.severity],
                        "subject": sanitize_lines(each.short_subject, 300),
                        "full_subject": sanitize_lines(each.subject, 1_000),
                        "says": RULES[each.rule],
                        "rule": each.rule,
                        "affected": each.affected,
                        "since": timestamp(each.since, milliseconds=False),
                        "age": "" if each.since is None else duration(now - each.since),
                        "evidence": sanitize_lines(each.evidence, 2_000),
                        "remedy": sanitize_lines(each.remedy, 1_000),
                        "plan": sanitize_lines(each.plan, 2_000),
                    }
                    for number, each in enumerate(self.findings[:MAX_SHOWN])
                ],
                more=max(0, len(self) - MAX_SHOWN),
            )
        )


@cache
def _templates() -> jinja2.Environment:
    templates = environment("analysis")
    templates.globals["leaf_name"] = leaf_name
    return templates


def find_all(
    session: Session, queries: Queries, limits: DiagnosisLimits, location: Location | None
) -> list[Finding]:
    """Apply every rule in one snapshot; the most severe findings first.

    Each statement reads by an index, or a bounded number of the newest rows.
    """
    now = pd.Timestamp.now("UTC").as_unit("ms")
    found = [
        *trend_rules.find_trends(session, queries, limits, now),
        *trend_rules.find_bloat(session, queries, limits),
        # Last, because its transaction fails if the role may not read the evidence of executors.
        *active_rules.find_active(session, queries, limits, now, location),
    ]
    order = list(RULES)
    return sorted(
        found,
        key=lambda each: (-SEVERITIES.index(each.severity), order.index(each.rule), -each.affected),
    )
