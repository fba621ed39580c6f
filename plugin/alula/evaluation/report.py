"""Render an evaluation as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alula.errors import AlulaError
from alula.evaluation.settings import show_settings

try:
    import jinja2
    from markupsafe import Markup

    from alula.evaluation import plots
except ImportError as error:
    raise AlulaError(f"A report needs jinja2 and matplotlib ({error}): pip install 'alula[report]'.") from None

__all__ = ["MARKS", "markup", "plots", "render_report", "template", "write_report"]

MARKS = "●■◆▲▼✚✖★"  # the marks of the plots, as text
GOALS = (0.9, 0.95, 0.99)  # the summary shows the fastest setting with each recall


def write_report(evaluation: Mapping[str, Any], path: Path) -> None:
    """Write the page.

    Args:
        evaluation: The result of `Evaluation.as_json`.
        path: The ``.html`` file.
    """
    path.write_text(render_report(evaluation), "utf-8")


def render_report(evaluation: Mapping[str, Any]) -> str:
    """The page as text; all strings of users' data are escaped."""
    k = evaluation["k"]
    subjects = [_with_numbers(subject) for subject in _numbered(evaluation["subjects"])]
    speed = [[_speed_dot(point, subject["name"]) for point in subject["points"]] for subject in subjects]
    bits = [(number, dots) for number, dots in enumerate(map(_bits_dots, subjects)) if dots]
    return template("report.html").render(
        about=evaluation,
        subjects=subjects,
        goals=GOALS,
        on_disk=any(subject["totals"]["disk"] for subject in subjects),
        heaviest=max(_total(subject, "memory") + _total(subject, "disk") for subject in subjects),
        speed={size: markup(plots.speed_recall(speed, f"recall@{k}", size)) for size in plots.SIZES},
        bits={size: markup(plots.recall_by_bits([dots for _, dots in bits], k, size)) for size in plots.SIZES}
        if bits
        else None,
        bits_names=[subjects[number]["name"] for number, _ in bits],
        marks=MARKS,
    )


def template(name: str) -> jinja2.Template:
    """A page of this package, which escapes all strings."""
    loader = jinja2.PackageLoader("alula.evaluation", "")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["settings"] = show_settings
    return environment.get_template(name)


def markup(svg: str) -> Markup:
    """A plot of `alula.evaluation.plots`, which a page does not escape."""
    return Markup(svg)  # noqa: S704 - our own markup


def _numbered(subjects: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The subjects with points from fast to slow, numbered across subjects."""
    found, number = [], 0
    for subject in subjects:
        points = []
        for point in sorted(subject["points"], key=lambda point: point["p50"]):
            number += 1
            points.append({**point, "number": number})
        found.append({**subject, "points": points})
    return found


def _with_numbers(subject: dict[str, Any]) -> dict[str, Any]:
    """Add the figures of the summary to a subject."""
    reached = []
    for goal in GOALS:
        good = [point for point in subject["points"] if point["recall"]["value"] >= goal]
        reached.append(min(good, key=lambda point: point["p50"]) if good else None)
    best = max(point["recall"]["value"] for point in subject["points"])
    totals = {"memory": _total(subject, "memory"), "disk": _total(subject, "disk")}
    return {**subject, "reached": reached, "best": best, "totals": totals}


def _total(subject: Mapping[str, Any], where: str) -> float:
    return float(sum(subject["sizes"][where].values()))


def _speed_dot(point: Mapping[str, Any], name: str) -> plots.Dot:
    recall = point["recall"]
    title = (
        f"{point['number']}. {name}: {show_settings(point['settings'])}\n"
        f"recall {plots.with_interval(recall)}, p50 {point['p50']:.2f} ms"
    )
    spread = (recall["low"], recall["high"])
    return plots.Dot(recall["value"], point["p50"], str(point["number"]), title, spread)


def _bits_dots(subject: Mapping[str, Any]) -> list[plots.Dot]:
    """The best recall without exact re-ranking for each code length."""
    best: dict[int, Mapping[str, Any]] = {}
    for point in subject["points"]:
        settings = point["settings"]
        if "bits" not in settings or settings.get("rerank", 1) != 0:
            continue
        known = best.get(settings["bits"])
        if known is None or point["recall"]["value"] > known["value"]:
            best[settings["bits"]] = point["recall"]
    return [
        plots.Dot(
            bits,
            recall["value"],
            f"{recall['value']:.2f}",
            f"{subject['name']}, {bits} bits: {recall['value']:.3f}",
            (recall["low"], recall["high"]),
        )
        for bits, recall in sorted(best.items())
    ]
