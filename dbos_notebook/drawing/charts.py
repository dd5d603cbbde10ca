"""``plot()``: the results of analyses as charts, drawn by Altair and rendered by vl-convert."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import pandas as pd

from dbos_notebook import text
from dbos_notebook.drawing.picture import Drawing, Picture
from dbos_notebook.drawing.raster import vega_lite_to_svg
from dbos_notebook.drawing.theme import DARK, FONT, LIGHT, SERIES_DARK, SERIES_LIGHT
from dbos_notebook.errors import PictureError
from dbos_notebook.imports import WholeImports
from dbos_notebook.status import STATUS_STYLES
from dbos_notebook.tables.frames import LISTING
from dbos_notebook.types import Theme

if TYPE_CHECKING:
    import altair as alt

WIDTH = 640
MAX_SERIES = 8
"""Lines or colors of one chart; the others are summed or left out, and the title says so."""
MAX_BARS = 30
MAX_LABEL = 60

# Vega's labels of a logarithmic axis in seconds.
_DURATION_LABEL = (
    "datum.value < 1 ? format(datum.value * 1000, ',.3~r') + ' ms' : "
    "datum.value < 60 ? format(datum.value, '.3~r') + ' s' : "
    "datum.value < 3600 ? format(datum.value / 60, '.3~r') + ' min' : "
    "datum.value < 86400 ? format(datum.value / 3600, '.3~r') + ' h' : "
    "format(datum.value / 86400, ',.3~r') + ' d'"
)
_DURATION_TICKS = (
    *(0.001, 0.01, 0.1, 1, 10, 60, 600),
    *(3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400),
)
_FINE_DURATION_TICKS = (
    *(base * 10**power for power in (-3, -2, -1, 0) for base in (1, 2, 5)),
    *(10, 20, 30, 60, 120, 300, 600, 1200, 1800),
    *(3600, 7200, 6 * 3600, 12 * 3600, 86_400, 2 * 86_400, 7 * 86_400, 30 * 86_400),
)
_TIME_LABEL = (
    "utchours(datum.value) || utcminutes(datum.value) ? utcFormat(datum.value, '%H:%M') : "
    "utcFormat(datum.value, '%d %b')"
)


def plot(frame: pd.DataFrame, *, theme: Theme = "auto") -> Picture:
    """Draw the result of an analysis as a chart.

    Parameters
    ----------
    frame
        What ``Client.workflow_statistics``, ``step_statistics``, ``latency_histogram``,
        ``failures``, ``throughput``, ``concurrency``, ``queue_history``, ``compare_versions``,
        ``contrast`` or ``landing_times`` returned. It may be filtered and sorted before.
    theme
        ``"auto"`` follows the reader's.

    Returns
    -------
    Picture
        Static: it is the same in a notebook, on GitHub, in print and after nbconvert. Its ``chart``
        is the ``altair.Chart``, to change it.

    Raises
    ------
    PictureError
        There is no chart for this DataFrame, or it is empty.

    Examples
    --------
    >>> statistics = dbos_notebook.connect(example_database).step_statistics()
    >>> plot(statistics).svg[:4]
    '<svg'
    """
    kind = frame.attrs.get(LISTING) if isinstance(frame, pd.DataFrame) else None
    if kind not in _CHARTS:
        raise PictureError(
            "There is no chart for this DataFrame. plot() draws the results of "
            f"{', '.join(sorted(_CHARTS))}; an operation such as merge or groupby makes another "
            "DataFrame, which has pandas' own .plot. dn.draw() draws graphs and process maps."
        )
    if frame.empty:
        raise PictureError(f"{kind} returned no rows, so there is nothing to draw.")
    make, needed = _CHARTS[kind]
    if missing := [name for name in needed if name not in frame.columns]:
        raise PictureError(
            f"The chart of {kind} needs the columns {', '.join(needed)}, and this DataFrame lacks "
            f"{', '.join(missing)}. Keep the columns; rows may be left out."
        )
    chart = make(frame)

    def draw() -> Drawing:
        specification = _styled(chart).to_json(indent=None)
        digest = hashlib.blake2b(specification.encode(), digest_size=5).hexdigest()
        svg = vega_lite_to_svg(specification, _version())
        svg = _colored(svg, f"chart{digest}", theme)
        return Drawing(svg, {}, str(kind).replace("_", " "))

    return Picture(draw, lambda: frame.to_string(), chart=chart)


def _version() -> str:
    """Return the newest version of Vega-Lite that vl-convert has, for the charts of Altair."""
    with WholeImports():
        import altair
        import vl_convert

    major = altair.SCHEMA_VERSION.lstrip("v").partition(".")[0]
    found = [each for each in vl_convert.get_vegalite_versions() if each.split(".")[0] == major]
    return str(max(found, key=lambda each: int(each.partition(".")[2])))


def _styled(chart: Any) -> Any:
    """Return a chart with the fonts, colors and lines of all pictures."""
    light = LIGHT
    label = {"labelColor": light.muted, "labelFont": FONT, "labelFontSize": 11}
    title = {"titleColor": light.muted, "titleFont": FONT, "titleFontSize": 11}
    configuration: dict[str, Any] = {
        "background": light.ground,
        "font": FONT,
        "padding": 16,
        "title": {
            "anchor": "start",
            "color": light.ink,
            "fontSize": 14,
            "fontWeight": 600,
            "subtitleColor": light.muted,
            "subtitleFontSize": 11,
            "subtitleFontWeight": 400,
            "frame": "group",
            "offset": 12,
        },
        "axis": {
            **label,
            **title,
            "titleFontWeight": 400,
            "gridColor": light.faint,
            "domainColor": light.line,
            "tickColor": light.line,
            "labelLimit": 340,
        },
        "legend": {**label, **title, "titleFontWeight": 400, "labelLimit": 300},
        "header": {**label, **title, "labelAnchor": "start"},
        "view": {"stroke": None},
        "range": {"category": list(SERIES_LIGHT)},
    }
    return chart.configure(**configuration)


def _colored(svg: str, picture: str, theme: Theme) -> str:
    """Return a chart's SVG in the colors of a theme, with an ID of its own."""
    pairs = dict(zip(SERIES_LIGHT, SERIES_DARK, strict=True))
    pairs |= {
        getattr(LIGHT, name): getattr(DARK, name)
        for name in ("frame", "ink", "muted", "line", "faint", "ground")
    }
    for style in STATUS_STYLES.values():
        pairs[style.light.line] = style.dark.line
    if theme == "dark":
        colors = re.compile("|".join(map(re.escape, pairs)))
        # Only in attributes, not in the text of labels.
        svg = re.sub(
            r'(?<=(?:fill|roke)=")#[0-9a-f]{6}(?=")',
            lambda found: colors.sub(lambda color: pairs[color[0]], found[0]),
            svg,
        )
    rules = ""
    if theme == "auto":
        used = [color for color in pairs if f'="{color}"' in svg]
        rules = "".join(
            f'#{picture} [{attribute}="{color}"]{{{attribute}:{pairs[color]}}}'
            for color in used
            for attribute in ("fill", "stroke")
        )
        rules = f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>"
    head, body = svg.split(">", 1)
    return f"{head.replace('<svg', f'<svg id={chr(34)}{picture}{chr(34)}', 1)}>{rules}{body}"


def _label(value: object) -> str:
    """Return a value as the label of an axis or a legend."""
    if text.is_missing(value):
        return "(none)"
    return text.sanitize_svg(text.leaf_name(str(value)), MAX_LABEL)


def _labels(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series[str]:
    """Return one label for each row, from several columns; "all" without any."""
    if not columns:
        return pd.Series("all", index=frame.index)
    parts = [frame[column].map(_short_names(frame[column].unique())) for column in columns]
    joined = parts[0].astype(str)
    for part in parts[1:]:
        joined = joined + " · " + part.astype(str)
    return joined


def _short_names(values: Iterable[object]) -> dict[object, str]:
    """Return the label of each value: of dotted names, the shortest end that no other one has."""
    names = {value: _label(value) for value in values}
    for parts in range(2, 5):
        count = Counter(names.values())
        alike = [value for value, label in names.items() if count[label] > 1]
        for value in alike:
            names[value] = text.sanitize_svg(".".join(str(value).split(".")[-parts:]), MAX_LABEL)
    return names


def _seconds(column: pd.Series[Any]) -> pd.Series[float]:
    seconds: pd.Series[float] = column.dt.total_seconds()
    return seconds


def _data(frame: pd.DataFrame) -> alt.InlineData:
    """Return rows as data of a chart: instants in milliseconds, durations in seconds."""
    import altair as alt

    columns: dict[str, list[Any]] = {}
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            column = (column - pd.Timestamp(0, tz="UTC")) / pd.Timedelta("1ms")
        elif column.dtype.kind == "m":
            column = _seconds(column)
        values = column.astype(object)
        columns[str(name)] = values.where(column.notna(), None).tolist()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return alt.InlineData(values=rows)


def _duration(field: str, title: str, durations: pd.Series[Any]) -> dict[str, Any]:
    """Return the field, the logarithmic scale and the axis of durations, which are positive."""
    import altair as alt

    known = _seconds(durations[durations.notna()])
    low, high = (known.min(), known.max()) if len(known) else (1.0, 1.0)
    ticks, fine = (
        [each for each in candidates if low / 1.5 <= each <= high * 1.5]
        for candidates in (_DURATION_TICKS, _FINE_DURATION_TICKS)
    )
    values = fine if len(ticks) < 3 else ticks
    axis = alt.Axis(title=title, labelExpr=_DURATION_LABEL, values=values, labelOverlap=True)
    # A domain of one value would have a wrong tick.
    scale = alt.Scale(type="log", nice=False, domain=[low / 1.3, high * 1.3])
    return {"shorthand": f"{field}:Q", "scale": scale, "axis": axis}


def _positive(durations: pd.Series[Any], least_ms: float = 1.0) -> pd.Series[Any]:
    """Return durations without zero, which a logarithmic axis cannot show."""
    least = pd.Timedelta(least_ms, unit="ms")
    fine = durations.astype("timedelta64[us]")
    return fine.where(fine.isna() | (fine > least), least)


def _time(
    field: str, title: str = "UTC", domain: tuple[pd.Timestamp, pd.Timestamp] | None = None
) -> alt.X:
    import altair as alt

    axis = alt.Axis(title=title, grid=False, labelOverlap=True, labelExpr=_TIME_LABEL)
    ends = alt.Undefined if domain is None else [round(at.timestamp() * 1000) for at in domain]
    return alt.X(f"{field}:T", scale=alt.Scale(type="utc", domain=ends), axis=axis)


def _titled(chart: Any, title: str, subtitle: str = "", height: int | None = None) -> Any:
    import altair as alt

    shown = alt.TitleParams(title, subtitle=[subtitle] if subtitle else alt.Undefined)
    sizes = {} if height is None else {"width": WIDTH, "height": height}
    return chart.properties(title=shown, **sizes)


# One function for each method of Client that returns something to draw.


def _group_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns by which statistics are grouped: those before the first number."""
    names = list(frame.columns)
    return [
        name
        for name in names[: names.index("count")]
        if not isinstance(frame[name].dtype, pd.DatetimeTZDtype)
    ]


def _time_column(frame: pd.DataFrame) -> str | None:
    """Return the column with the start of time buckets, if there is one."""
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.DatetimeTZDtype):
            return str(name)
        if name == "count":
            break
    return None


def _statistics(frame: pd.DataFrame) -> Any:
    """Draw p50, p90 and p99 of each group, or over time."""
    import altair as alt

    keys, time = _group_columns(frame), _time_column(frame)
    shown = frame[[*keys, *([time] if time else []), "count", "p50", "p90", "p99"]].copy()
    unknown = int(shown["p50"].isna().sum())
    shown = shown[shown["p50"].notna()]
    if shown.empty:
        raise PictureError("No duration is known, so there is nothing to draw.")
    for name in ("p50", "p90", "p99"):
        shown[name] = _positive(shown[name])
    title = "Durations: p50, p90 and p99"
    if time is not None:
        return _statistics_over_time(shown, keys, time, title)
    version = "app_version" if "app_version" in keys and len(keys) > 1 else None
    shown["group"] = _labels(shown, [key for key in keys if key != version] or keys)
    shown["version"] = _labels(shown, [version]) if version else ""
    order = list(dict.fromkeys(shown["group"]))
    left_out = len(order) - MAX_BARS
    shown = shown[shown["group"].isin(order[:MAX_BARS])]
    data = shown[["group", "version", "count", "p50", "p90", "p99"]]
    y = alt.Y("group:N", sort=order, title=None)
    color = alt.Color("version:N", title="version") if version else alt.ColorValue(SERIES_LIGHT[0])
    offset = alt.YOffset("version:N") if version else alt.Undefined
    base = alt.Chart(_data(data)).encode(y=y, color=color, yOffset=offset)

    durations = pd.concat([shown["p50"], shown["p99"]])

    def x(field: str) -> alt.X:
        return alt.X(**_duration(field, "duration", durations))

    chart = alt.layer(
        base.mark_rule(strokeWidth=2, opacity=0.55).encode(x=x("p50"), x2="p99:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x("p50")),
        base.mark_tick(thickness=2, size=11).encode(x=x("p90")),
        base.mark_point(size=50, strokeWidth=1.8).encode(x=x("p99")),
    )
    rows = len(data) if version else data["group"].nunique()
    subtitle = "dot: p50, tick: p90, ring: p99, on a logarithmic axis"
    if left_out > 0:
        subtitle += f"; {left_out:,} more groups are not drawn"
    if unknown:
        subtitle += f"; {unknown:,} without a duration"
    return _titled(chart, title, subtitle, 22 * max(rows, 2))


def _statistics_over_time(shown: pd.DataFrame, keys: list[str], time: str, title: str) -> Any:
    import altair as alt

    shown["group"] = _labels(shown, keys)
    sizes = shown.groupby("group", sort=False)["count"].sum().sort_values(ascending=False)
    kept = list(sizes.index[:MAX_SERIES])
    rest = len(sizes) - len(kept)
    shown = shown[shown["group"].isin(kept)]
    long = shown.melt(
        [time, "group"], ["p50", "p90", "p99"], var_name="quantile", value_name="duration"
    ).rename(columns={time: "time"})
    several = len(kept) > 1
    if several:
        long = long[long["quantile"] != "p90"]
    color = (
        alt.Color("group:N", sort=kept, title=None)
        if several
        else alt.Color("quantile:N", title=None)
    )
    base = alt.Chart(_data(long)).encode(
        x=_time("time"),
        y=alt.Y(**_duration("duration", "duration", long["duration"])),
        color=color,
        detail="quantile:N",
    )
    names = ["p50", "p99"] if several else ["p50", "p90", "p99"]
    chart = _dashed_lines(base, names, legend=several)
    left_out = f"{rest:,} groups with fewer are not drawn" if rest > 0 else ""
    what = title if not several else "Durations over time: p50 and p99"
    return _titled(chart, what, left_out, 240)


def _throughput(frame: pd.DataFrame) -> Any:
    """Draw what ended in each bucket, by outcome, and what was created."""
    import altair as alt

    outcomes = {"succeeded": "SUCCESS", "failed": "ERROR", "cancelled": "CANCELLED"}
    long = frame.melt(["time"], list(outcomes), var_name="outcome", value_name="count")
    long["count"] = long["count"].fillna(0).astype("int64")
    colors = [STATUS_STYLES[status].light.line for status in outcomes.values()]
    color = alt.Color("outcome:N", title=None, scale=alt.Scale(domain=list(outcomes), range=colors))
    bars = _stacked_bars(long, "runs per bucket", color)
    arrivals = _continued(frame[["time", "created"]].rename(columns={"created": "count"}))
    line = (
        alt.Chart(_data(arrivals))
        .mark_line(color=LIGHT.ink, strokeWidth=1.4, interpolate="step-after")
        .encode(x=_time("time"), y="count:Q")
    )
    subtitle = "bars: ended, by outcome; line: created"
    return _titled(alt.layer(bars, line), "Throughput", subtitle, 220)


def _bucket_length(times: pd.Series[Any]) -> pd.Timedelta:
    """Return the length of a time bucket: the shortest distance between two of them."""
    gaps = times.drop_duplicates().sort_values().diff().dropna()
    return pd.Timedelta("1h") if gaps.empty else gaps.min()


def _stacked_bars(rows: pd.DataFrame, title: str, color: alt.Color) -> alt.Chart:
    """Draw counts by time as bars as wide as a bucket, stacked in the order of the rows."""
    import altair as alt

    # As rectangles: Vega-Lite stacks only bars that have no end.
    high = rows.groupby("time", sort=False)["count"].cumsum()
    end = rows["time"] + _bucket_length(rows["time"])
    bars = rows.assign(low=high - rows["count"], high=high, end=end)
    chart: alt.Chart = (
        alt.Chart(_data(bars))
        .mark_rect(stroke=LIGHT.ground, strokeWidth=0.5)
        .encode(
            x=_time("time"),
            x2="end:T",
            y=alt.Y("low:Q", axis=_count_axis(title)),
            y2="high:Q",
            color=color,
        )
    )
    return chart


def _continued(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows of buckets with the end of the last one, to which a step line is drawn."""
    last = frame[frame["time"] == frame["time"].max()]
    end = last.assign(time=last["time"] + _bucket_length(frame["time"]))
    continued: pd.DataFrame = pd.concat([frame, end], ignore_index=True)
    return continued


def _dashed_lines(base: alt.Chart, names: list[str], *, legend: bool) -> Any:
    """Draw a line with points for each quantile, which its dashes distinguish."""
    import altair as alt

    dashes = [[1, 0], [5, 3], [2, 3]]
    shown = alt.Legend(symbolType="stroke", symbolSize=400, symbolStrokeColor=LIGHT.muted)
    dash = alt.StrokeDash(
        "quantile:N",
        title=None,
        legend=shown if legend else None,
        scale=alt.Scale(domain=names, range=dashes[: len(names)]),
    )
    # A layer of their own for the points: the legend would show those of the lines.
    points = base.mark_point(filled=True, size=18, opacity=1)
    return alt.layer(base.mark_line(strokeWidth=1.8).encode(strokeDash=dash), points)


def _count_axis(title: str) -> alt.Axis:
    import altair as alt

    return alt.Axis(title=title, tickMinStep=1, labelOverlap=True)


def _concurrency(frame: pd.DataFrame) -> Any:
    """Draw how many ran and waited: the mean of each bucket, and the most at once."""
    keys = [
        name
        for name in takewhile(lambda name: name not in ("waiting", "running"), frame.columns)
        if not isinstance(frame[name].dtype, pd.DatetimeTZDtype)
    ]
    if keys:
        return _running_by_group(frame, keys)
    return _titled(_levels(frame), "Concurrency", "line: mean; area: up to the most at once", 220)


def _levels(frame: pd.DataFrame) -> Any:
    import altair as alt

    parts = [
        _continued(
            frame[["time"]].assign(
                state=state,
                mean=frame[f"{state}_mean"],
                most=frame[f"{state}_max"].astype("Float64"),
            )
        )
        for state in ("waiting", "running")
    ]
    base = alt.Chart(_data(pd.concat(parts, ignore_index=True))).encode(
        x=_time("time"),
        color=alt.Color(
            "state:N",
            title=None,
            legend=alt.Legend(symbolOpacity=1, symbolType="square"),
            scale=alt.Scale(
                domain=["waiting", "running"],
                range=[STATUS_STYLES[name].light.line for name in ("ENQUEUED", "PENDING")],
            ),
        ),
    )
    return alt.layer(
        base.mark_area(opacity=0.18, interpolate="step-after").encode(
            y=alt.Y("most:Q", axis=_count_axis("runs"), stack=None)
        ),
        base.mark_line(strokeWidth=1.8, interpolate="step-after").encode(y="mean:Q"),
    )


def _running_by_group(frame: pd.DataFrame, keys: list[str]) -> Any:
    import altair as alt

    shown = frame[["time"]].assign(group=_labels(frame, keys), mean=frame["running_mean"])
    sizes = shown.groupby("group", sort=False)["mean"].sum().sort_values(ascending=False)
    kept = list(sizes.index[:MAX_SERIES])
    rest = len(sizes) - len(kept)
    chart = (
        alt.Chart(_data(_continued(shown[shown["group"].isin(kept)])))
        .mark_area(interpolate="step-after", opacity=0.85)
        .encode(
            x=_time("time"),
            y=alt.Y("mean:Q", title="running, mean"),
            color=alt.Color("group:N", sort=kept, title=None),
        )
    )
    left_out = f"{rest:,} groups with fewer are not drawn" if rest > 0 else ""
    return _titled(chart, "Concurrency", left_out, 220)


def _queue_history(frame: pd.DataFrame) -> Any:
    """Draw what waited and ran on a queue with its limit, and below how long it waited."""
    import altair as alt

    limits = frame.attrs.get("limits") or {}
    top = _levels(frame)
    described = [
        f"{words} {limits[name]:,}"
        for name, words in (
            ("concurrency", "concurrency"),
            ("worker_concurrency", "per worker"),
            ("rate", "rate limit"),
        )
        if limits.get(name)
    ]
    if limits.get("concurrency"):
        rule = alt.Chart(alt.InlineData(values=[{"limit": limits["concurrency"]}]))
        rule = rule.mark_rule(strokeDash=[5, 4], color=LIGHT.ink).encode(y="limit:Q")
        top = alt.layer(top, rule)
    subtitle = "line: mean; area: up to the most at once"
    if described:
        subtitle += f"; limits: {', '.join(described)}"
    if limits.get("concurrency"):
        subtitle += " (dashed: concurrency)"
    top = _titled(top, "Queue: waiting and running", subtitle, 180)
    end = frame["time"].max() + _bucket_length(frame["time"])
    waits = frame.melt(
        ["time"], ["queue_wait_p50", "queue_wait_p99"], var_name="quantile", value_name="wait"
    )
    waits = waits[waits["wait"].notna()]
    waits["wait"] = _positive(waits["wait"])
    waits["quantile"] = waits["quantile"].str.removeprefix("queue_wait_")
    base = alt.Chart(_data(waits)).encode(
        x=_time("time", domain=(frame["time"].min(), end)),
        y=alt.Y(**_duration("wait", "wait until the start", waits["wait"])),
        color=alt.ColorValue(SERIES_LIGHT[0]),
        detail="quantile:N",
    )
    bottom = _dashed_lines(base, ["p50", "p99"], legend=True)
    return alt.vconcat(top, _titled(bottom, "Queue: how long runs waited", height=130))


def _failures(frame: pd.DataFrame) -> Any:
    """Draw how often each cause made runs fail, or when."""
    import altair as alt

    shown = frame.copy()
    shown["cause"] = _labels(shown, ["name", "failed_step", "error_type"])
    time = _bucket_column(shown)
    sizes = shown.groupby("cause", sort=False)["count"].sum().sort_values(ascending=False)
    order = list(sizes.index)
    if time is None:
        totals = sizes.reset_index().head(MAX_BARS)
        chart = (
            alt.Chart(_data(totals))
            .mark_bar(color=STATUS_STYLES["ERROR"].light.line, height={"band": 0.7})
            .encode(
                x=alt.X("count:Q", axis=_count_axis("failed runs")),
                y=alt.Y("cause:N", sort=order, title=None),
            )
        )
        return _titled(chart, "Failures by cause", _rest(order, MAX_BARS), 22 * len(totals))
    kept = order[:MAX_SERIES]
    shown["cause"] = shown["cause"].where(shown["cause"].isin(kept), "other causes")
    grouped = shown.groupby(["cause", time], sort=False, observed=True)["count"].sum()
    data = grouped.reset_index().rename(columns={time: "time"})
    # The most frequent cause is at the bottom.
    causes = [*kept, "other causes"]
    data = data.sort_values("cause", key=lambda column: column.map(causes.index))
    color = alt.Color("cause:N", sort=causes, title=None)
    bars = _stacked_bars(data, "failed runs per bucket", color)
    return _titled(bars, "Failures by cause over time", "", 220)


def _bucket_column(frame: pd.DataFrame) -> str | None:
    """Return the column of time buckets of failures: a time other than first and last seen."""
    for name in frame.columns:
        time = isinstance(frame[name].dtype, pd.DatetimeTZDtype)
        if time and name not in ("first_seen", "last_seen"):
            return str(name)
    return None


def _rest(order: list[str], limit: int) -> str:
    return f"{len(order) - limit:,} more are not drawn" if len(order) > limit else ""


def _changes(rows: pd.DataFrame, title: str, subtitle: str, axis: str) -> Any:
    """Draw a relative change with its interval for each row, one below the other."""
    import altair as alt

    colors = {
        "slower": STATUS_STYLES["ERROR"].light.line,
        "faster": STATUS_STYLES["SUCCESS"].light.line,
        "no evidence": LIGHT.line,
    }
    color = alt.Color(
        "verdict:N",
        title=None,
        scale=alt.Scale(domain=list(colors), range=list(colors.values())),
    )
    domain = [min(0.0, float(rows["low"].min())), max(0.0, float(rows["high"].max()))]
    x = alt.Scale(domain=domain, nice=False), alt.Axis(title=axis, format="+.0%", labelOverlap=True)
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("label:N", sort=list(rows["label"]), title=None), color=color
    )
    none = alt.Chart(alt.InlineData(values=[{"x": 0.0}]))
    chart = alt.layer(
        none.mark_rule(strokeDash=[3, 3], color=LIGHT.line).encode(x="x:Q"),
        base.mark_rule(strokeWidth=2.2, opacity=0.6).encode(
            x=alt.X("low:Q", scale=x[0], axis=x[1]), x2="high:Q"
        ),
        base.mark_point(filled=True, size=64, opacity=1).encode(
            x=alt.X("value:Q", scale=x[0], axis=x[1])
        ),
    )
    return _titled(chart, title, subtitle, 22 * max(2, len(rows)))


def _compare_versions(frame: pd.DataFrame) -> Any:
    """Draw the change of the p50 of each workflow and step, with its interval."""
    rows = frame[frame["p50_change"].notna()].head(MAX_BARS)
    left_out = int(frame["p50_change"].notna().sum()) - len(rows)
    unknown = len(frame) - left_out - len(rows)
    errors = int(frame["verdict"].astype(str).str.contains("errors").sum())
    if rows.empty:
        raise PictureError("No change of a p50 is known, so there is nothing to draw.")
    named = rows["function_name"].where(rows["function_name"].notna(), rows["name"])
    labels = _labels(named.to_frame("name"), ["name"])
    data = pd.DataFrame(
        {
            "label": _distinct(labels + " (" + rows["of"].astype(str) + ")"),
            "value": rows["p50_change"],
            "low": rows["p50_change_low"],
            "high": rows["p50_change_high"],
            "verdict": rows["verdict"].map(_verdict_group),
        }
    )
    subtitle = "with its interval"
    for number, words in (
        (left_out, "more are not drawn"),
        (unknown, "without a p50 on both sides"),
        (errors, "with more or fewer errors, which this does not show"),
    ):
        if number > 0:
            subtitle += f"; {number:,} {words}"
    return _changes(data, "Change of the p50", subtitle, "change of the duration")


def _verdict_group(verdict: object) -> str:
    """Return what a verdict says about the p50."""
    words = {word.strip() for word in str(verdict).split(",")}
    return "slower" if "slower" in words else "faster" if "faster" in words else "no evidence"


def _distinct(labels: pd.Series[str]) -> pd.Series[str]:
    """Return labels of which a repeated one has a number."""
    number = labels.groupby(labels).cumcount()
    return labels.where(number == 0, labels + " (" + (number + 1).astype(str) + ")")


def _landing_times(frame: pd.DataFrame) -> Any:
    """Draw how long after its due time each run of a schedule finished, and which are missing."""
    import altair as alt

    shown = frame.assign(
        verdict=frame["status"].astype(str).where(~frame["missed"].fillna(value=False), "missed"),
        landing=_positive(frame["landing_time"]),
    )
    done = shown[shown["landing"].notna()][["due_at", "landing", "verdict"]]
    missed = shown[shown["verdict"] == "missed"][["due_at"]]
    layers = []
    if not done.empty:
        found = list(dict.fromkeys(done["verdict"]))
        colors = [STATUS_STYLES[name].light.line for name in found]
        layers.append(
            alt.Chart(_data(done))
            .mark_point(filled=True, size=50, opacity=1)
            .encode(
                x=_time("due_at", "due, UTC"),
                y=alt.Y(**_duration("landing", "finished after", done["landing"])),
                color=alt.Color(
                    "verdict:N", title=None, scale=alt.Scale(domain=found, range=colors)
                ),
            )
        )
    if not missed.empty:
        layers.append(
            alt.Chart(_data(missed))
            .mark_rule(color=STATUS_STYLES["ERROR"].light.line, strokeDash=[3, 3])
            .encode(x=_time("due_at", "due, UTC"))
        )
    if not layers:
        raise PictureError("No run of the schedule has ended or was missed: nothing to draw.")
    subtitle = f"{len(missed):,} missed, as dashed lines" if len(missed) else ""
    return _titled(alt.layer(*layers), "Landing times", subtitle, 180)


def _latency_histogram(frame: pd.DataFrame) -> Any:
    """Draw a heatmap: when, how long, how many."""
    import altair as alt

    time = _time_column(frame)
    bounds = ["duration_from", "duration_to"]
    keys = [name for name in _group_columns(frame) if name not in bounds]
    if time is None:
        raise PictureError("latency_histogram(None) has no times. Call it with bucket='1h'.")
    shown = frame.rename(columns={time: "time"})
    unknown = int(shown.loc[shown["duration_to"].isna(), "count"].sum())
    shown = shown[shown["duration_to"] > pd.Timedelta(0)]
    shown = shown.groupby(["time", *bounds], observed=True)["count"].sum().reset_index()
    shown["end"] = shown["time"] + _bucket_length(shown["time"])
    # The interval below 1 ms has no end on a logarithmic axis.
    shown["duration_from"] = _positive(shown["duration_from"], 0.5)
    durations = pd.concat([shown["duration_from"], shown["duration_to"]])
    chart = (
        alt.Chart(_data(shown))
        .mark_rect(color=SERIES_LIGHT[0])
        .encode(
            x=_time("time"),
            x2="end:T",
            y=alt.Y(**_duration("duration_from", "duration", durations)),
            y2="duration_to:Q",
            opacity=alt.Opacity(
                "count:Q", title="runs", scale=alt.Scale(type="sqrt", range=[0.08, 1])
            ),
        )
    )
    notes = [f"all of {', '.join(keys)} together"] if keys else []
    notes += [f"{unknown:,} without a duration are not drawn"] if unknown else []
    return _titled(chart, "Durations over time", "; ".join(notes), 240)


def _contrast(frame: pd.DataFrame) -> Any:
    """Draw the share of each value among the bad runs and among the others."""
    import altair as alt

    rows = frame.head(MAX_BARS)
    fields = rows["field"].map(lambda field: text.sanitize_svg(str(field), MAX_LABEL))
    labels = fields.astype(str) + " = " + rows["value"].map(_label).astype(str)
    shares = {"bad runs": "share_bad", "the others": "share_baseline"}
    parts = [
        pd.DataFrame({"label": labels, "side": side, "share": rows[column]})
        for side, column in shares.items()
    ]
    colors = [STATUS_STYLES["ERROR"].light.line, LIGHT.line]
    sides = list(shares)
    chart = (
        alt.Chart(_data(pd.concat(parts, ignore_index=True)))
        .mark_bar()
        .encode(
            x=alt.X("share:Q", axis=alt.Axis(title="share of the runs", format="%")),
            y=alt.Y("label:N", sort=list(labels), title=None),
            yOffset=alt.YOffset("side:N", sort=sides),
            color=alt.Color("side:N", title=None, scale=alt.Scale(domain=sides, range=colors)),
        )
    )
    subtitle = "the most over-represented first"
    if len(frame) > MAX_BARS:
        subtitle += f"; {len(frame) - MAX_BARS:,} more are not drawn"
    return _titled(chart, "What bad runs have in common", subtitle, 26 * max(2, len(rows)))


_P50_CHANGE = ("p50_change", "p50_change_low", "p50_change_high")
_PERCENTILES = ("count", "p50", "p90", "p99")
_LEVELS = (
    *("running", "running_mean", "running_max"),
    *("waiting", "waiting_mean", "waiting_max"),
)
_CHARTS: dict[str, tuple[Callable[[pd.DataFrame], Any], tuple[str, ...]]] = {
    "workflow_statistics": (_statistics, _PERCENTILES),
    "step_statistics": (_statistics, _PERCENTILES),
    "throughput": (_throughput, ("time", "created", "succeeded", "failed", "cancelled")),
    "concurrency": (_concurrency, ("time", *_LEVELS)),
    "queue_history": (_queue_history, ("time", *_LEVELS, "queue_wait_p50", "queue_wait_p99")),
    "failures": (_failures, ("name", "failed_step", "error_type", "count")),
    "compare_versions": (
        _compare_versions,
        ("of", "name", "function_name", "verdict", *_P50_CHANGE),
    ),
    "contrast": (_contrast, ("field", "value", "share_bad", "share_baseline")),
    "latency_histogram": (_latency_histogram, ("duration_from", "duration_to", "count")),
    "landing_times": (_landing_times, ("due_at", "status", "missed", "landing_time")),
}
"""The chart of what each method of ``Client`` returned, and the columns that it needs."""
