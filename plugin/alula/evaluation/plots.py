"""Plots of the report: SVG with CSS variables as colours and text as text."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

SERIES = 8  # number of colours and marks; further indexes repeat them
MARKS = "osD^vPX*"
INK, GRID = "#010101", "#020202"  # replaced by CSS variables, as the colours of `_colour`
SIZES = {"wide": (860, 460), "narrow": (350, 380)}  # CSS pixels, for desktops and for phones
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_LABEL_OFFSETS = ((0, 11), (0, -11), (13, 0), (-13, 0))  # pixels from a point, one for each index in turn


@dataclass(frozen=True)
class Dot:
    """A point of a plot.

    Args:
        x: Horizontal coordinate.
        y: Vertical coordinate.
        label: Text beside the point; "" for none.
        title: Text of the tooltip.
        spread: The interval of the recall, on the axis of the recall.
        size: Diameter in pixels.
    """

    x: float
    y: float
    label: str
    title: str
    spread: tuple[float, float] | None = None
    size: float = 8.0


def with_interval(measured: Mapping[str, float]) -> str:
    """A measure and the ends of its interval, for a tooltip."""
    return f"{measured['value']:.3f} ({measured['low']:.3f} to {measured['high']:.3f})"


def speed_recall(series: Sequence[Sequence[Dot]], measure: str, size: str) -> str:
    """Plot latency over a measure: a line through the best points of each index.

    Only the points of that line are labelled; the tooltips name all of them.
    """
    figure, axes = _figure(size)
    axes.set_yscale("log")
    axes.set_xlabel(f"{measure}  (better to the right)")
    axes.set_ylabel("median latency, ms  (better below)")
    _plain_ticks(axes.yaxis, [dot.y for dots in series for dot in dots])
    for number, dots in enumerate(series):
        front = list(_front(dots))
        axes.plot([dot.x for dot in front], [dot.y for dot in front], color=_colour(number), linewidth=1.2, alpha=0.6)
        _label(axes, front, number)
        for dot in dots:
            low, high = dot.spread or (dot.x, dot.x)
            axes.plot([low, high], [dot.y, dot.y], color=_colour(number), linewidth=1, alpha=0.3)
    places = [dot.x for dots in series for dot in dots]
    axes.set_xlim(max(-0.02, min(places) - 0.06), min(1.025, max(places) + 0.06))
    return _finish(figure, axes, series, f"speed-{size}", f"Median latency over {measure} of every setting")


def recall_by_bits(series: Sequence[Sequence[Dot]], k: int, size: str) -> str:
    """Plot recall without exact re-ranking over code length: one series per index."""
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
        _label(axes, dots, number)
        for dot in dots:
            low, high = dot.spread or (dot.y, dot.y)
            axes.plot([dot.x, dot.x], [low, high], color=_colour(number), linewidth=1, alpha=0.4)
    axes.set_ylim(bottom=0, top=1.05)
    return _finish(figure, axes, series, f"bits-{size}", f"Recall@{k} over code length")


def memory_recall(series: Sequence[Sequence[Dot]], k: int, target: float, size: str) -> str:
    """Plot memory over recall, with a line at the target.

    Each index is a row of points, one for each setting.
    """
    figure, axes = _figure(size)
    axes.set_yscale("log")
    axes.set_xlabel(f"recall@{k}  (better to the right)")
    axes.set_ylabel("memory, bytes per row  (better below)")
    _plain_ticks(axes.yaxis, [dot.y for dots in series for dot in dots])
    axes.axvline(target, color=INK, linewidth=1, linestyle=(0, (4, 4)))
    for number, dots in enumerate(series):
        axes.plot([dot.x for dot in dots], [dot.y for dot in dots], color=_colour(number), linewidth=1.2, alpha=0.6)
    lowest = min(dot.x for dots in series for dot in dots)
    axes.set_xlim(max(-0.02, lowest - 0.06), 1.025)
    return _finish(figure, axes, series, f"memory-{size}", f"Memory of a row over recall@{k} of every setting")


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
    """Ticks at 1, 2, 5, 10, ...; for a narrow range at all nine of a decade."""
    close = max(values) < 6 * min(values)
    axis.set_major_locator(LogLocator(subs=range(1, 10) if close else (1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.axes.set_ylim(min(values) / 1.35, max(values) * 1.35)


def _front(dots: Sequence[Dot]) -> Iterator[Dot]:
    """The Pareto-optimal dots, from the best recall down."""
    fastest = float("inf")
    for dot in sorted(dots, key=lambda dot: (-dot.x, dot.y)):
        if dot.y < fastest:
            fastest = dot.y
            yield dot


def _colour(number: int) -> str:
    return f"#0101{number % SERIES + 16:02x}"


def _finish(figure: Figure, axes: Any, series: Sequence[Sequence[Dot]], name: str, description: str) -> str:
    """Draw the points, and render the SVG element of the page."""
    titles: dict[str, str] = {}
    for number, dots in enumerate(series):
        for i, dot in enumerate(dots):
            identity = f"{name}-{number}-{i}"
            titles[identity] = dot.title
            look: dict[str, Any] = {"marker": MARKS[number % SERIES], "color": _colour(number), "gid": identity}
            axes.plot([dot.x], [dot.y], linestyle="", markersize=dot.size, markeredgewidth=0, **look)
    out = io.BytesIO()
    # text as text elements; a fixed salt for reproducible files
    import matplotlib as mpl  # noqa: PLC0415

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return _for_page(out.getvalue(), name, description, titles)


def _label(axes: Any, dots: Sequence[Dot], number: int) -> None:
    """Write the labels of one index beside its points, each index on another side."""
    for dot in dots:
        axes.annotate(
            dot.label,
            (dot.x, dot.y),
            xytext=_LABEL_OFFSETS[number % len(_LABEL_OFFSETS)],
            textcoords="offset pixels",
            ha="center",
            va="center",
            fontsize=11,
            color=_colour(number),
        )


def _for_page(svg: bytes, name: str, description: str, titles: Mapping[str, str]) -> str:
    """Convert an SVG file to an element of a page: unique ids, CSS colours, tooltips."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(svg)  # noqa: S314
    for part in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(part)
    for attribute in ("width", "height"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-label", description)
    for element in root.iter():
        identity = element.get("id", "")
        if identity in titles:
            element.set("class", "dot")
            title = ET.Element(f"{{{_SVG}}}title")
            title.text = titles[identity]
            element.insert(0, title)
        elif identity:  # matplotlib repeats ids in every plot
            element.set("id", f"{name}-{identity}")
        for key in ("style", "clip-path", f"{{{_XLINK}}}href"):
            if key in element.attrib:
                element.set(key, element.attrib[key].replace("url(#", f"url(#{name}-").replace("#m", f"#{name}-m", 1))
    text: str = ET.tostring(root, encoding="unicode")
    for number in range(SERIES):
        text = text.replace(_colour(number), f"var(--series-{number})")
    return text.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
