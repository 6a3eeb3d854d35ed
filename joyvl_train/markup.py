"""Pieces of a self-contained HTML report: document, sections, tables, plots, symbols.

Every piece is a function from plain data to `Html`; text from outside is escaped on its way in. A
report loads nothing: styles, plots and pictures are all inside.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from joyvl_train.report_style import STYLE


class Html(str):
    """Text that is HTML already; any other `str` is escaped where it enters a report."""

    __slots__ = ()


Cell = str | float | int | None


def text(value: Cell) -> Html:
    """One value as HTML: `Html` as it is, numbers with up to four digits, None as a dash."""
    if isinstance(value, Html):
        return value
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return Html("–")
    if isinstance(value, float):
        return Html(number(value))
    return Html(html.escape(str(value)))


def number(value: float) -> str:
    """A number in at most about four digits: 0.9312, 12.5, 1234, 3e-05."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        return shown.replace("-", "−")
    return f"{value:.2g}".replace("-", "−")


# Document


def document(title: str, parts: Iterable[Html], subtitle: str = "") -> Html:
    """The whole document; `parts` are sections, in order, and make the list of contents."""
    parts = list(parts)
    links = "".join(
        f'<a href="#{part.name}">{text(part.heading)}</a>'
        for part in parts
        if isinstance(part, Section)
    )
    return Html(
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body>{_symbols()}"
        f"<header><h1>{text(title)}</h1><p>{text(subtitle)}</p>"
        f'<nav aria-label="Sections">{links}</nav></header>\n<main>{"".join(parts)}</main>\n'
        "</body></html>\n"
    )


class Section(Html):
    """A section of a page, with what the list of contents needs of it."""

    __slots__ = ("heading", "name")
    name: str
    heading: str


def section(title: str, *parts: Html, intro: str = "") -> Section:
    """A section with its heading, a line of introduction and its parts."""
    name = "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")
    lead = f'<p class="intro">{text(intro)}</p>' if intro else ""
    made = Section(f'<section id="{name}"><h2>{text(title)}</h2>{lead}{"".join(parts)}</section>\n')
    made.name, made.heading = name, title
    return made


# Pieces


def paragraph(line: str) -> Html:
    return Html(f"<p>{text(line)}</p>")


def grid(*parts: Html) -> Html:
    """Parts side by side, as many in a row as fit."""
    return Html(f'<div class="grid">{"".join(parts)}</div>')


def headline(figures: Iterable[tuple[str, Cell, str]]) -> Html:
    """Large figures: (name, value, note such as the interval)."""
    cards = "".join(
        f"<div><dt>{text(name)}</dt><dd><b>{text(value)}</b><small>{text(note)}</small></dd></div>"
        for name, value, note in figures
    )
    return Html(f'<dl class="figures">{cards}</dl>')


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str = "") -> Html:
    """A table whose first column names the rows. Raises `ValueError` for a row of another length.

    Numbers and `Html` cells stay on one line.
    """
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    body = []
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"a row of {len(row)} cells under {len(columns)} columns: {row!r}")
        first, *rest = row
        cells = "".join(
            f'<td class="n">{text(cell)}</td>'
            if cell is None or isinstance(cell, float | int | Html)
            else f"<td>{text(cell)}</td>"
            for cell in rest
        )
        body.append(f'<tr><th scope="row">{text(first)}</th>{cells}</tr>')
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


# Plots

COLOURS = ("#0060a8", "#c04a00", "#00795c", "#a0478a", "#6b5b00", "#444444")
_DASHES = ("none", "7 3", "2 3", "9 3 2 3", "4 4", "1 2")
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 392, 12, 184


def stroke(number: int) -> str:
    """The attributes of a plot's line by its number: lines differ in colour and in dash."""
    dash = _DASHES[(number + number // 6) % len(_DASHES)]
    return f'stroke="{COLOURS[number % len(COLOURS)]}" stroke-dasharray="{dash}"'


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers that span [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def plot(
    series: Mapping[str, Sequence[tuple[float, float]]],
    title: str = "",
    x: str = "step",
    y: str = "",
) -> Html:
    """Lines over a common axis, as inline SVG; `x` and `y` say what the axes show.

    Lines differ in colour and in dash; the last value of each stands in the legend. Points that
    are no finite numbers are left out.
    """
    lines = {
        name: sorted(point for point in points if all(map(math.isfinite, point)))
        for name, points in series.items()
    }
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return Html(
            f'<figure><figcaption>{text(title)}</figcaption><p class="note">'
            "Nothing was logged.</p></figure>"
        )
    xs = [point[0] for points in lines.values() for point in points]
    ys = [point[1] for points in lines.values() for point in points]
    y_ticks = ticks(min(ys), max(ys))
    x_ticks = [t for t in ticks(min(xs), max(xs), 5) if min(xs) <= t <= max(xs)] or [min(xs)]
    left, right = min(xs), max(xs)
    low, high = y_ticks[0], y_ticks[-1]

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = (point[0] - left) / (right - left) if right > left else 0.5
        up = (point[1] - low) / (high - low) if high > low else 0.5
        return _LEFT + across * (_RIGHT - _LEFT), _BOTTOM - up * (_BOTTOM - _TOP)

    drawn = []
    for tick in y_ticks:
        down = place((left, tick))[1]
        drawn.append(
            f'<path class="rule" d="M{_LEFT} {down:.1f}H{_RIGHT}"/>'
            f'<text x="{_LEFT - 6}" y="{down + 4.5:.1f}" class="end">{number(tick)}</text>'
        )
    for tick in x_ticks:
        across = place((tick, low))[0]
        drawn.append(f'<text x="{across:.1f}" y="{_BOTTOM + 18}" class="mid">{number(tick)}</text>')
    middle = (_LEFT + _RIGHT) / 2
    drawn.append(f'<text x="{middle}" y="{_BOTTOM + 37}" class="mid dim">{text(x)}</text>')
    keys = []
    for i, (name, points) in enumerate(lines.items()):
        colour, style = COLOURS[i % len(COLOURS)], stroke(i)
        path = "L".join("{:.1f} {:.1f}".format(*place(point)) for point in points)
        drawn.append(f'<path class="line" {style} d="M{path}"/>')
        if len(points) == 1:
            across, down = place(points[0])
            drawn.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{colour}"/>')
        keys.append(
            f'<li><svg width="26" height="8" aria-hidden="true"><path class="line" {style} '
            f'd="M1 4H25"/></svg>{text(name)} <b>{number(points[-1][1])}</b></li>'
        )
    title = f"{title} ({y})" if title and y else title or y
    said = ", ".join(f"{name} ends at {number(points[-1][1])}" for name, points in lines.items())
    return Html(
        f"<figure><figcaption>{text(title)}</figcaption>"
        f'<svg class="plot" viewBox="0 0 420 226" role="img" '
        f'aria-label="{text(f"{title} over {x}: {said}")}">{"".join(drawn)}</svg>'
        f'<ul class="keys">{"".join(keys)}</ul></figure>'
    )


# Symbols and style

SYMBOLS = {
    "hit": '<path d="M3 8.5l3.2 3.2L13 4.6"/>',
    "wrong-text": '<path d="M3 6h10M3 10h10M10.4 2.8L5.6 13.2"/>',
    "late": '<circle cx="8" cy="8" r="5.2"/><path d="M8 4.8V8l2.4 1.6"/>',
    "repeat": '<path d="M12.7 9.4A5 5 0 1 1 12.4 5.6M12.8 2.6v3.2H9.6"/>',
    "false-alarm": '<path d="M4 4l8 8M12 4l-8 8"/>',
    "missed": '<circle cx="8" cy="8" r="4.6" stroke-dasharray="2.4 2"/>',
    "due": '<path d="M8 2.8L13.2 8 8 13.2 2.8 8z" fill="currentColor"/>',
    "user": '<path d="M2.8 3.4h10.4v7H8l-3 2.8v-2.8H2.8z"/>',
    "result": '<path d="M13 3.4v5.2H4M6.8 5.6L3.6 8.6l3.2 3"/>',
    "delegated": '<path d="M3 12.6V7.4h9M9.2 4.4l3.2 3-3.2 3"/>',
    "malformed": '<path d="M8 2.6L14 13H2zM8 6.4v3.2M8 11.2v.4"/>',
}


def symbol(name: str, label: str = "") -> Html:
    """An icon of `SYMBOLS` that reads as `label`; without one it is decoration."""
    role = f'role="img" aria-label="{text(label)}"' if label else 'aria-hidden="true"'
    return Html(f'<svg class="s" viewBox="0 0 16 16" {role}><use href="#s-{name}"/></svg>')


def _symbols() -> str:
    drawn = "".join(
        f'<symbol id="s-{name}" viewBox="0 0 16 16">{shape}</symbol>'
        for name, shape in SYMBOLS.items()
    )
    return f'<svg class="sprites" aria-hidden="true">{drawn}</svg>'
