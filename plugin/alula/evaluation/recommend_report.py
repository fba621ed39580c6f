"""Render a recommendation as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alula.evaluation.choice import LESS_TIME, MORE_MEMORY
from alula.evaluation.report import MARKS, markup, plots, template
from alula.evaluation.settings import show_settings

_LARGE, _SMALL = 13.0, 7.0  # pixels


def write_recommendation(found: Mapping[str, Any], path: Path) -> None:
    """Write the page.

    Args:
        found: The result of `Recommendation.as_json`.
        path: The ``.html`` file.
    """
    path.write_text(render_recommendation(found), "utf-8")


def render_recommendation(found: Mapping[str, Any]) -> str:
    """The page as text; all strings of users' data are escaped."""
    contenders = [_with_figures(one) for one in found["contenders"]]
    prospects = [{**one, "totals": _totals(one)} for one in found["prospects"]]
    series = [[_dot(one, point) for point in one["points"]] for one in contenders]
    series += [_estimates(one) for one in prospects if one["estimates"]]
    draw = {size: plots.memory_recall(series, found["k"], found["target"], size) for size in plots.SIZES}
    return template("recommend.html").render(
        about=found,
        contenders=contenders,
        prospects=prospects,
        on_disk=any(one["totals"]["disk"] for one in (*contenders, *prospects)),
        plot={size: markup(svg) for size, svg in draw.items()},
        marks=MARKS,
        rule=(MORE_MEMORY, LESS_TIME),
    )


def _with_figures(one: Mapping[str, Any]) -> dict[str, Any]:
    best = one["chosen"] or max(one["points"], key=lambda point: point["recall"]["value"])
    return {**one, "shown": best, "totals": _totals(one)}


def _totals(one: Mapping[str, Any]) -> dict[str, float]:
    return {where: float(sum(one["sizes"][where].values())) for where in ("memory", "disk")}


def _estimates(one: Mapping[str, Any]) -> list[plots.Dot]:
    """The estimates of a type that needs an encoder, from few candidates to many."""
    memory, shown = one["totals"]["memory"], one["enough"] or max(one["estimates"])
    return [
        plots.Dot(
            recall["value"],
            memory,
            "",
            f"{one['name']}, untrained: {count} candidates\nrecall about {recall['value']:.3f}, {memory:,.0f} bytes",
            size=_LARGE if count == shown else _SMALL,
        )
        for count, recall in one["estimates"].items()
    ]


def _dot(one: Mapping[str, Any], point: Mapping[str, Any]) -> plots.Dot:
    recall, shown = point["recall"], point == one["shown"]
    title = (
        f"{one['name']}: {show_settings(point['settings'])}\n"
        f"recall {plots.with_interval(recall)}, p50 {point['p50']:.2f} ms, "
        f"{one['totals']['memory']:,.0f} bytes of memory per row"
    )
    size = _LARGE if shown else _SMALL
    return plots.Dot(recall["value"], one["totals"]["memory"], "", title, (recall["low"], recall["high"]), size)
