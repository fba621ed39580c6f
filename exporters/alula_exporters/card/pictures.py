"""Plots of a model card: as plain data from the metadata, then as PNG files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import Any

from alula.encoders import EncoderInfo
from alula_exporters.figures import is_number
from alula_exporters.output_file import atomic_file

_LONGEST_NAME = 60
_LINE = 24  # characters of an axis label
_TICKS = 8
_LOG_FROM = 100  # largest by smallest value: above it a linear axis shows only the largest
_LABELS = {
    "flops": "FLOPs (multiplications per pair of rows)",
    "nnz": "non-zeros per row (mean)",
    "non-zeros": "non-zeros per row (mean)",
    "r-sub": "evenness R_sub (1 is perfect)",
    "dead-dims": "dimensions never used",
    "dead-dimensions": "dimensions never used",
}
_BUDGETS = {"flops": "flops_requested", "nnz": "nnz_requested", "non-zeros": "nnz_requested"}


@dataclass(frozen=True)
class Picture:
    """One curve.

    Args:
        name: The file's name without its ending.
        title: Its caption, also the alternative text.
        x: Numbers along the horizontal axis.
        y: As many values; NaN leaves a gap.
        x_label: Name and unit of x.
        y_label: Name and unit of y.
        requested: A value to mark with a line, the one that training was asked to reach.
        marked: Mark each point, from zero upwards, for few points that each count.
    """

    name: str
    title: str
    x: Sequence[float]
    y: Sequence[float]
    x_label: str
    y_label: str
    requested: float | None = None
    marked: bool = False


def pictures_of(info: EncoderInfo) -> list[Picture]:
    """Plots of an encoder: training curves and, for codes, distortion by length.

    Args:
        info: The metadata of the encoder file.
    """
    found = list(_curve_pictures(info.training))
    distortion, variance = info.training.get("distortion"), info.training.get("variance")
    if isinstance(distortion, list) and all(map(is_number, distortion)) and is_number(variance) and variance > 0:
        bits = [8.0 * (level + 1) for level in range(len(distortion))]
        lost = [100 * value / variance for value in distortion]
        title = "Distortion of each code length"
        found.append(
            Picture(
                "distortion", title, bits, lost, "bits of the code", "distortion (% of the rows' variance)", None, True
            )
        )
    names = [picture.name for picture in found]
    return [picture for number, picture in enumerate(found) if picture.name not in names[:number]]


def _curve_pictures(training: Mapping[str, Any]) -> Iterator[Picture]:
    curves = training.get("curves")
    for stage, columns in curves.items() if isinstance(curves, dict) else ():
        steps = columns.get("step") if isinstance(columns, dict) else None
        if not isinstance(steps, list) or not all(map(is_number, steps)):
            continue
        for name, values in columns.items():
            if name == "step" or not isinstance(values, list) or len(values) != len(steps):
                continue
            # a figure that not every step reports has None between its points
            points = [(step, value) for step, value in zip(steps, values, strict=True) if is_number(value)]
            if points:
                key = _slug(name)
                requested = training.get(_BUDGETS.get(key, ""))
                yield Picture(
                    _slug(f"{stage}-{name}"),
                    f"{stage}: {name}",
                    [step for step, _ in points],
                    [value for _, value in points],
                    "step",
                    _LABELS.get(key, f"{name} (squared distance)" if key.startswith("distortion") else name),
                    requested if is_number(requested) else None,
                )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST_NAME] or "curve"


def can_draw() -> bool:
    """True if matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(picture: Picture, path: Path) -> None:
    """Draw one picture as a PNG file.

    Args:
        picture: The plot to draw.
        path: The file to write, replaced if it exists.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, slow to import)

    # not pyplot: a figure of its own needs no display and leaves nothing behind in the process
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        picture.x,
        picture.y,
        color="C0",
        linewidth=1.5,
        marker="o" if picture.marked or len(picture.y) == 1 else None,
        markersize=4,
    )
    if picture.requested is not None:
        axes.axhline(picture.requested, color="C3", linestyle="--", linewidth=1.2)
        axes.annotate(
            f"asked for {picture.requested:.3g}",
            (1, picture.requested),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            horizontalalignment="right",
            color="C3",
        )
    if 0 < _LOG_FROM * min(picture.y) < max(picture.y):
        axes.set_yscale("log")
    elif picture.marked:
        axes.set_ylim(bottom=min(0, *picture.y))
        axes.set_xticks(picture.x[::-1][:: math.ceil(len(picture.x) / _TICKS)])
    axes.set_title(_literal(picture.title), loc="left", fontsize="medium")
    axes.set_xlabel(picture.x_label)
    axes.set_ylabel(_literal(fill(picture.y_label, _LINE)))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _literal(text: str) -> str:
    return text.replace("$", r"\$")  # a formula would begin there
