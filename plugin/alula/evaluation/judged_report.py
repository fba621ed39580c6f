"""Render an evaluation with judgements as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alula.evaluation.judgements import MEASURES
from alula.evaluation.report import MARKS, markup, plots, template
from alula.evaluation.settings import show_settings


def write_judged_report(evaluation: Mapping[str, Any], path: Path) -> None:
    """Write the page.

    Args:
        evaluation: The result of `JudgedEvaluation.as_json`.
        path: The ``.html`` file.
    """
    path.write_text(render_judged_report(evaluation), "utf-8")


def render_judged_report(evaluation: Mapping[str, Any]) -> str:
    """The page as text; all strings of users' data are escaped."""
    systems = [{**system, "number": number} for number, system in enumerate(evaluation["systems"], 1)]
    names = list(dict.fromkeys(system["name"] for system in systems if system["p50"] is not None))
    series = [
        [_dot(system) for system in systems if system["name"] == name and system["p50"] is not None] for name in names
    ]
    return template("judged.html").render(
        about=evaluation,
        systems=systems,
        names=names,
        measures=MEASURES,
        plot={size: markup(plots.speed_recall(series, MEASURES[0], size)) for size in plots.SIZES},
        marks=MARKS,
    )


def _dot(system: Mapping[str, Any]) -> plots.Dot:
    measured = system["measures"][MEASURES[0]]
    title = (
        f"{system['number']}. {system['name']}: {show_settings(system['settings'])}\n"
        f"{MEASURES[0]} {plots.with_interval(measured)}, p50 {system['p50']:.2f} ms"
    )
    spread = (measured["low"], measured["high"])
    return plots.Dot(measured["value"], system["p50"], str(system["number"]), title, spread)
