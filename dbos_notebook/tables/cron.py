"""When schedules are due, computed from their cron expressions as DBOS computes it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator


def due_times(cron: str, timezone: str | None, after: dt.datetime) -> Iterator[dt.datetime]:
    """Yield the times after an instant at which a schedule is due, without end.

    Parameters
    ----------
    cron
        The expression; the first of six fields is the seconds.
    timezone
        The IANA name of its time zone; ``None`` or ``""``: UTC.
    after
        An instant; exclusive.

    Raises
    ------
    ValueError
        A row can hold any string: the expression or the time zone cannot be interpreted, or no
        further time exists.

    Examples
    --------
    >>> times = due_times("0 2 * * *", "Europe/Rome", dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC))
    >>> next(times).isoformat()
    '2026-01-03T02:00:00+01:00'
    """
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from croniter import croniter

    try:
        zone = ZoneInfo(timezone) if timezone else dt.UTC
        times = croniter(cron, after.astimezone(zone), second_at_beginning=True)
        while True:
            time: dt.datetime = times.get_next(dt.datetime)
            yield time
    except (ValueError, OverflowError, OSError, ZoneInfoNotFoundError) as error:
        raise ValueError(str(error)) from None


def next_run(cron: str, timezone: str | None, after: dt.datetime) -> dt.datetime | None:
    """Return when a schedule starts its next workflow; ``None`` if its row cannot be interpreted.

    Examples
    --------
    >>> next_run("0 2 * * *", None, dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)).isoformat()
    '2026-01-03T02:00:00+00:00'
    >>> next_run("every day", None, dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC))
    """
    try:
        return next(due_times(cron, timezone, after))
    except ValueError:
        return None
