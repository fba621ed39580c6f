"""The report's plots: SVG by matplotlib, whose colours are the page's CSS variables and whose text stays text."""

from __future__ import annotations

import io
import itertools
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

SERIES = 8  # colours and marks; more indexes begin again
MARKS = "osD^vPX*"
INK, GRID = "#010101", "#020202"  # stand for CSS variables, as do the colours of `_colour`
SIZES = {"wide": (860, 460), "narrow": (350, 380)}  # CSS pixels: one for desks, one for phones
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1), (-1, 1), (1, 1), (1, -1), (-1, -1))
_DISTANCES = (12, 18, 26, 36, 48, 64)  # pixels from a point to the middle of its label
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Dot:
    """A point of a plot.

    Args:
        x: To the right.
        y: Upwards.
        label: What stands beside it.
        title: What a pointer that rests on it shows.
        spread: The ends of its interval, if it has one: of its recall, whichever axis shows that.
    """

    x: float
    y: float
    label: str
    title: str
    spread: tuple[float, float] | None = None


def speed_recall(series: Sequence[Sequence[Dot]], k: int, size: str) -> str:
    """Latency over recall: one series per index, the best settings joined by a line."""
    figure, axes = _figure(size)
    axes.set_yscale("log")
    axes.set_xlabel(f"recall@{k}  (better to the right)")
    axes.set_ylabel("median latency, ms  (better below)")
    _plain_ticks(axes.yaxis, [dot.y for dots in series for dot in dots])
    for number, dots in enumerate(series):
        front = list(_front(dots))
        axes.plot([dot.x for dot in front], [dot.y for dot in front], color=_colour(number), linewidth=1.2, alpha=0.6)
        for dot in dots:
            low, high = dot.spread or (dot.x, dot.x)
            axes.plot([low, high], [dot.y, dot.y], color=_colour(number), linewidth=1, alpha=0.3)
    lowest = min(dot.x for dots in series for dot in dots)
    axes.set_xlim(max(-0.02, lowest - 0.06), 1.025)
    return _finish(figure, axes, series, f"speed-{size}", f"Median latency over recall@{k} of every setting")


def recall_by_bits(series: Sequence[Sequence[Dot]], k: int, size: str) -> str:
    """Recall over code length, without exact re-ranking: one series per index."""
    figure, axes = _figure(size)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("code length, bits")
    axes.set_ylabel(f"recall@{k} by code distance alone")
    ticks = sorted({dot.x for dots in series for dot in dots})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(ticks[0] / 1.4, ticks[-1] * 1.4)
    for number, dots in enumerate(series):
        axes.plot([dot.x for dot in dots], [dot.y for dot in dots], color=_colour(number), linewidth=1.5)
        for dot in dots:
            low, high = dot.spread or (dot.y, dot.y)
            axes.plot([dot.x, dot.x], [low, high], color=_colour(number), linewidth=1, alpha=0.4)
    axes.set_ylim(bottom=0, top=1.05)
    return _finish(figure, axes, series, f"bits-{size}", f"Recall@{k} over code length")


def _figure(size: str) -> tuple[Figure, Any]:
    width, height = SIZES[size]
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, which="both", labelsize=12)
    for side in axes.spines.values():
        side.set_color(GRID)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(13)
    return figure, axes


def _plain_ticks(axis: Any, values: Sequence[float]) -> None:
    """Ticks at 1, 2, 5, 10, ... written as plain numbers; all nine of a decade where the values are close together."""
    close = max(values) < 6 * min(values)
    axis.set_major_locator(LogLocator(subs=range(1, 10) if close else (1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.axes.set_ylim(min(values) / 1.35, max(values) * 1.35)


def _front(dots: Sequence[Dot]) -> Iterator[Dot]:
    """The dots that no other beats both ways, from the best recall down."""
    fastest = float("inf")
    for dot in sorted(dots, key=lambda dot: (-dot.x, dot.y)):
        if dot.y < fastest:
            fastest = dot.y
            yield dot


def _colour(number: int) -> str:
    return f"#0101{number % SERIES + 16:02x}"


def _finish(figure: Figure, axes: Any, series: Sequence[Sequence[Dot]], name: str, says: str) -> str:
    """Draw points and labels, and hand over the SVG as it stands in a page."""
    titles: dict[str, str] = {}
    for number, dots in enumerate(series):
        for i, dot in enumerate(dots):
            identity = f"{name}-{number}-{i}"
            titles[identity] = dot.title
            look: dict[str, Any] = {"marker": MARKS[number % SERIES], "color": _colour(number), "gid": identity}
            axes.plot([dot.x], [dot.y], linestyle="", markersize=8, markeredgewidth=0, **look)
    figure.draw_without_rendering()  # settles where things are
    _label(axes, series, upright=name.startswith("bits"))
    out = io.BytesIO()
    # text stays text; the salt makes equal plots equal files
    import matplotlib as mpl  # noqa: PLC0415

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return _for_page(out.getvalue(), name, says, titles)


def _label(axes: Any, series: Sequence[Sequence[Dot]], *, upright: bool) -> None:
    """Put each label where it covers neither a point nor another label, with a line to its point where that is far."""
    placed = [(axes.transData.transform((dot.x, dot.y)), dot, n) for n, dots in enumerate(series) for dot in dots]
    frame = axes.get_window_extent()
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for (x, y), _, _ in placed]
    taken += [_interval(axes, dot, upright=upright) for _, dot, _ in placed if dot.spread]
    for (x, y), dot, number in placed:
        half = 4 + 3.6 * len(dot.label), 7.5

        def box(distance: float, way: tuple[int, int], at: Any = (x, y), half: Any = half) -> Box:
            middle = at[0] + way[0] * (distance + half[0] - 7), at[1] + way[1] * distance
            return middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]

        ways = (*_DIRECTIONS[4:], *_DIRECTIONS[:4]) if upright else _DIRECTIONS  # a line runs through upright dots
        tries = [(distance, box(distance, way)) for distance, way in itertools.product(_DISTANCES, ways)]
        inside = [
            entry
            for entry in tries
            if entry[1][0] > frame.x0 and entry[1][1] > frame.y0 and entry[1][2] < frame.x1 and entry[1][3] < frame.y1
        ]
        distance, best = min(inside or tries, key=lambda entry: sum(_common(entry[1], other) for other in taken))
        taken.append(best)
        middle = (best[0] + best[2]) / 2 - x, (best[1] + best[3]) / 2 - y
        line = {"arrowstyle": "-", "color": _colour(number), "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            dot.label,
            (dot.x, dot.y),
            xytext=middle,
            textcoords="offset pixels",
            ha="center",
            va="center",
            fontsize=11,
            color=_colour(number),
            arrowprops=line if distance > _DISTANCES[1] else None,
        )


def _interval(axes: Any, dot: Dot, *, upright: bool) -> Box:
    """Where the line of a dot's interval is, in pixels."""
    ends = [(dot.x, end) if upright else (end, dot.y) for end in dot.spread or ()]
    (left, low), (right, high) = axes.transData.transform(ends)
    return left - 1, low - 1, right + 1, high + 1


def _common(one: Box, other: Box) -> float:
    """The area that two boxes have in common."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _for_page(svg: bytes, name: str, says: str, titles: Mapping[str, str]) -> str:
    """An SVG file as an element of a page: own identities, the page's colours, titles that a pointer shows."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(svg)  # noqa: S314
    for part in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(part)
    for gone in ("width", "height"):
        root.attrib.pop(gone, None)
    root.set("role", "img")
    root.set("aria-label", says)
    for element in root.iter():
        identity = element.get("id", "")
        if identity in titles:
            element.set("class", "dot")
            title = ET.Element(f"{{{_SVG}}}title")
            title.text = titles[identity]
            element.insert(0, title)
        elif identity:  # matplotlib gives the same ones in every plot
            element.set("id", f"{name}-{identity}")
        for key in ("style", "clip-path", f"{{{_XLINK}}}href"):
            if key in element.attrib:
                element.set(key, element.attrib[key].replace("url(#", f"url(#{name}-").replace("#m", f"#{name}-m", 1))
    text: str = ET.tostring(root, encoding="unicode")
    for number in range(SERIES):
        text = text.replace(_colour(number), f"var(--series-{number})")
    return text.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
