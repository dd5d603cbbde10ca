"""Render pictures as SVG: escaping templates, colors and shapes.

Each colored element has its color as an attribute, which every renderer supports, and a class. The
"auto" theme adds a style that recolors the classes where the reader prefers dark; its selectors
contain the picture's ID, so that they apply to nothing else on the page.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from dbos_notebook import text
from dbos_notebook.drawing.theme import DARK, DIFFERENCES, FONT, LIGHT, Palette
from dbos_notebook.html import environment
from dbos_notebook.status import STATUS_STYLES
from dbos_notebook.types import Theme

if TYPE_CHECKING:
    import jinja2


_PLAIN = {
    "ground": "fill",
    "frame": "fill",
    "card": "fill",
    "ink": "fill",
    "muted": "fill",
    "line": "stroke",
    "faint": "stroke",
    "ground-line": "stroke",
    "ink-line": "stroke",
    "line-mark": "fill",
    "frame-line": "stroke",
}
_MARK_PATH = Markup('<path d="{}" {}{}{}/>')
_NO_FILL = Markup(' fill="none"')
_STROKE = Markup(' stroke-width="{:g}" stroke-linecap="round" stroke-linejoin="round"')
_OF_STATUS = {
    "line": "stroke",
    "fill": "fill",
    "text": "fill",
    "mark": "fill",
    "fill-line": "stroke",
}


class Colorizer:
    """Writes the color attributes of elements, and records the classes that were used."""

    def __init__(self, theme: Theme, picture: str) -> None:
        self._theme = theme
        self._picture = picture
        self._used: dict[str, tuple[str, str]] = {}
        self._marks: dict[str, Markup] = {}

    def __call__(self, *roles: str) -> Markup:
        """Return the attributes for color roles such as "ink" or "ERROR.line"."""
        palette = DARK if self._theme == "dark" else LIGHT
        classes, attributes = [], []
        for role in roles:
            name, attribute = _class(role)
            self._used[name] = (role, attribute)
            classes.append(name)
            attributes.append(f'{attribute}="{_color(palette, role)}"')
        return Markup(f'class="{" ".join(classes)}" {" ".join(attributes)}')  # noqa: S704 - constants of the palette

    def mark(self, name: str) -> Markup:
        """Return the mark of a status or a difference, 16 wide, its center at 0,0."""
        if name not in self._marks:
            if name in DIFFERENCES:
                status, paths = DIFFERENCES[name].status, DIFFERENCES[name].mark
            else:
                status, paths = name, STATUS_STYLES[name].mark
            fills = {"status": [f"{status}.mark"], "ground": ["card"], "none": []}
            strokes = {"status": [f"{status}.line"], "ground": ["ground-line"], "none": []}
            self._marks[name] = Markup("").join(
                _MARK_PATH.format(
                    path.d,
                    self(*fills[path.fill], *strokes[path.stroke]),
                    Markup("") if path.fill != "none" else _NO_FILL,
                    Markup("") if path.stroke == "none" else _STROKE.format(path.width),
                )
                for path in paths
            )
        return self._marks[name]

    def style(self) -> Markup:
        """Return a style that makes the colors used so far dark where the reader prefers dark."""
        if self._theme != "auto":
            return Markup("")
        rules = "".join(
            f"#{self._picture} .{name}{{{attribute}:{_color(DARK, role)}}}"
            for name, (role, attribute) in sorted(self._used.items())
        )
        return Markup(f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>")  # noqa: S704 - constants of the palette


def rules(scope: str, theme: Theme) -> str:
    """Return CSS rules that give all pictures within ``scope`` the colors of a theme.

    Used by views, whose host selects light or dark.

    Examples
    --------
    >>> ".view .ink{fill:#e6edf3}" in rules(".view", "dark")
    True
    """
    palette = DARK if theme == "dark" else LIGHT
    roles = [*_PLAIN, *(f"{status}.{part}" for status in STATUS_STYLES for part in _OF_STATUS)]
    return "".join(
        f"{scope} .{name}{{{attribute}:{_color(palette, role)}}}"
        for role in roles
        for name, attribute in [_class(role)]
    )


def _class(role: str) -> tuple[str, str]:
    if role in _PLAIN:
        return role, _PLAIN[role]
    status, part = role.rsplit(".", 1)
    return f"{status or 'unknown'}-{part}", _OF_STATUS[part]


def _color(palette: Palette, role: str) -> str:
    if role in _PLAIN:
        field = role.removesuffix("-line").removesuffix("-mark")
        return str(getattr(palette, field))
    status, part = role.rsplit(".", 1)
    field = {"mark": "line", "fill-line": "fill"}.get(part, part)
    return str(getattr(palette.statuses[status], field))


def format_number(value: float) -> str:
    """Write a coordinate.

    Examples
    --------
    >>> format_number(12.04), format_number(0.26), format_number(-0.01)
    ('12', '0.3', '0')
    """
    # A tenth of a pixel is below the resolution of screens.
    text = f"{value:.1f}"
    return text.removesuffix(".0") if text != "-0.0" else "0"


@cache
def _templates() -> jinja2.Environment:
    templates = environment("drawing")
    templates.filters["n"] = format_number
    templates.globals.update(
        outline=outline,
        curve=curve,
        arrow=arrow,
        zigzag=zigzag,
        text_width=text.text_width,
        FONT=FONT,
    )
    return templates


def render(template: str, theme: Theme, picture: str, **values: Any) -> str:
    """Render a template of a picture."""
    color = Colorizer(theme, picture)
    return _templates().get_template(template).render(color=color, id=picture, **values)


def outline(shape: str, w: float, h: float) -> str:
    """Return the path of a card's outline, centered at 0,0; its shape shows the operation.

    Examples
    --------
    >>> outline("other", 40, 20)
    'M-20-10H20V10H-20Z'
    """
    x, y = w / 2, h / 2
    n = format_number
    if shape == "start_child":  # an arrow to the right
        return f"M{n(-x)} {n(-y)}H{n(x - 8)}L{n(x)} 0L{n(x - 8)} {n(y)}H{n(-x)}Z"
    if shape == "get_result":  # notched on the left
        return f"M{n(-x)} {n(-y)}H{n(x)}V{n(y)}H{n(-x)}L{n(-x + 8)} 0Z"
    if shape in ("send", "recv"):
        d = 5 if shape == "send" else -5
        return f"M{n(-x + 3 + d)} {n(-y)}H{n(x - 3 + d)}L{n(x - 3 - d)} {n(y)}H{n(-x + 3 - d)}Z"
    if shape in ("set_event", "get_event"):  # a note with a folded corner
        return (
            f"M{n(-x)} {n(-y)}H{n(x - 7)}L{n(x)} {n(-y + 7)}V{n(y)}H{n(-x)}Z"
            f"M{n(x - 7)} {n(-y)}V{n(-y + 7)}H{n(x)}"
        )
    if shape == "stream":
        wave = n(-w / 4)
        return (
            f"M{n(-x)} {n(-y)}H{n(x)}V{n(y - 2)}q{n(-w / 8)}-5 {wave} 0t{wave} 0t{wave} 0t{wave} 0Z"
        )
    if shape == "other":
        return f"M{n(-x)}{n(-y)}H{n(x)}V{n(y)}H{n(-x)}Z"
    r = {"pill": y, "sleep": y, "workflow": 9.0}.get(shape, 5.0)
    return (
        f"M{n(-x + r)} {n(-y)}H{n(x - r)}A{n(r)} {n(r)} 0 0 1 {n(x)} {n(-y + r)}V{n(y - r)}"
        f"A{n(r)} {n(r)} 0 0 1 {n(x - r)} {n(y)}H{n(-x + r)}A{n(r)} {n(r)} 0 0 1 {n(-x)} {n(y - r)}"
        f"V{n(-y + r)}A{n(r)} {n(r)} 0 0 1 {n(-x + r)} {n(-y)}Z"
    )


def curve(points: list[tuple[float, float]]) -> str:
    """Return the path of the Bézier curve given by Graphviz's points."""
    n = format_number
    if not points:
        return ""
    start, *rest = (f"{n(x)} {n(y)}" for x, y in points)
    return f"M{start}C{' '.join(rest)}"


def arrow(points: list[tuple[float, float]], tip: tuple[float, float], size: float = 3.4) -> str:
    """Return the path of an arrowhead from the end of a curve to its tip."""
    (x0, y0), (x1, y1) = points[-1], tip
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5 or 1.0
    dx, dy = (y0 - y1) / length * size, (x1 - x0) / length * size
    n = format_number
    return f"M{n(x0 + dx)} {n(y0 + dy)}L{n(x1)} {n(y1)}L{n(x0 - dx)} {n(y0 - dy)}Z"


def zigzag(x: float, height: float) -> str:
    """Return the path of a vertical zigzag line, which marks a break of the axis.

    Examples
    --------
    >>> zigzag(10, 12)
    'M10-4l3 6l-3 6l3 6'
    """
    teeth = round((height + 4) / 6)
    return f"M{format_number(x)}-4" + "".join(f"l{3 if n % 2 == 0 else -3} 6" for n in range(teeth))


def page(svg: str) -> str:
    """Return an HTML page that contains a picture's SVG."""
    return _templates().get_template("page.html.j2").render(svg=Markup(svg))  # noqa: S704 - rendered by this module
