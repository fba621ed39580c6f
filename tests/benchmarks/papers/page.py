"""Write docs/benchmarks.md and its pictures from the runs' figures: ``python -m tests.benchmarks.papers.page``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tests.benchmarks.papers.tables import Table, load_tables
from tests.benchmarks.report import BUILD, markdown, say, shown

PAGE = Path("docs/benchmarks.md")
PICTURES = Path("docs/benchmarks")

INTRODUCTION = """\
# Benchmarks

Alula's encoders against what would be chosen instead, on real vectors: which recall, at which cost, at how many bytes
for a row. Every table says what it answers before its figures, and which targets the figures met or missed after them.
`make bench-papers` runs all tables; each table names the command that repeats it alone. What a search costs inside
Milvus is in the README, by `make bench`.
"""


@click.command()
@click.option("--quick", is_flag=True, help="Write the page from quick runs' figures where no full run's are there.")
def main(quick: bool) -> None:
    """Write docs/benchmarks.md from build/bench/papers-*.json."""
    parts, tables = [INTRODUCTION], load_tables()
    for number, table in tables.items():
        figures = _figures(number, quick)
        if figures is None:
            say(f"Table {number} has no figures{'' if quick else ' of a full run'}; the page leaves it out.")
        else:
            parts.append(_section(number, table, figures))
    if len(parts) == 1:
        raise SystemExit(
            "There are no figures to write a page from. Run make bench-papers first"
            + ("." if quick else " (a quick run's figures are taken only with --quick).")
        )
    PAGE.write_text("\n".join(parts))
    say(f"{PAGE}: {len(parts) - 1} of {len(tables)} tables")


def _figures(number: str, quick: bool) -> dict[str, Any] | None:
    for path in (BUILD / f"papers-{number}.json", BUILD / f"papers-{number}-quick.json"):
        if path.exists() and (quick or not path.stem.endswith("-quick")):
            return json.loads(path.read_text())
    return None


def _section(number: str, table: Table, figures: dict[str, Any]) -> str:
    seeds = figures["seeds"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    training = ", ".join(map(str, seeds["training"]))
    lines = [f"## Table {number}: {table.TITLE}\n", table.ANSWERS]
    if figures["quick"]:
        lines.append(
            "**A QUICK run: few rows, short training, one seed. It shows that the benchmark works, not what Alula "
            "does.**\n"
        )
    for title, rows in figures["tables"].items():
        lines.append(f"### {title}\n\n{markdown(rows)}\n")
    for picture in figures["pictures"]:
        _draw(picture)
        lines.append(f"![{picture['title']}: {picture['y']} by {picture['x']}](benchmarks/{picture['name']}.png)\n")
    lines.append("### Targets\n\n| | figure | target | |\n|---|---|---|---|")
    for entry in figures["targets"]:
        verdict = "met" if entry["met"] else "**missed**"
        lines.append(f"| {entry['what']} | {shown(entry['figure'])} | {entry['wanted']} | {verdict} |")
    command = f"QUICK=1 {figures['command']}" if figures["quick"] else figures["command"]
    lines.append(
        f"\n`{command}`: {figures['date']}, {figures['seconds'] / 60:.0f} minutes on {figures['machine']}. Seed of the "
        f"split {seeds['split']}, of training {training}. {versions}.\n"
    )
    return "\n".join(lines)


def _draw(picture: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    PICTURES.mkdir(parents=True, exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for label, points in picture["lines"].items():
        ceiling = label.startswith("dense")  # no family of points, but what all of them are held against
        style = {"linestyle": "--", "color": "grey"} if ceiling else {"marker": "o", "markersize": 4}
        axes.plot(*zip(*points, strict=True), label=label, **style)
    if "x" in picture["log"]:
        axes.set_xscale("log")
    if "y" in picture["log"]:
        axes.set_yscale("log")
    axes.set(title=picture["title"], xlabel=picture["x"], ylabel=picture["y"])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    # no date or version in the file: the same figures give the same bytes
    figure.savefig(PICTURES / f"{picture['name']}.png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
