"""Write docs/benchmarks.md and its pictures from the runs' figures: ``python -m benchmarks.page``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.groups import GROUPS
from benchmarks.report import BUILD, markdown, say, shown

PAGE = Path("docs/benchmarks.md")
PICTURES = Path("docs/benchmarks")

INTRODUCTION = """\
# Benchmarks

What Alula's index types find, at which cost and how many bytes for a row, on real vectors. Every section says what it
answers before its figures, and which targets the figures met or missed after them; it names the command that repeats it
alone. `make bench` is the whole job inside Milvus, `make bench-papers` holds the encoders against what would be chosen
instead, `make bench-load` what `alula load` promises; `make bench-speed` measures searches in one process, and
`make bench-gateway` what a gateway costs and stands.
"""


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Args:
        name: The figures are in ``build/bench/NAME.json``.
        title: Its heading.
        answers: The question and how to read the tables, in Markdown.
    """

    name: str
    title: str
    answers: str


def sections() -> Iterator[Section]:
    """All sections in order."""
    for group in GROUPS.values():
        for name, part in group.parts().items():
            yield Section(f"{group.name}-{name}", group.heading.format(name) + part.TITLE, part.ANSWERS)


@click.command()
@click.option("--quick", is_flag=True, help="Write the page from quick runs' figures where no full run's are there.")
def main(quick: bool) -> None:
    """Write docs/benchmarks.md from the figures in build/bench."""
    parts, wanted = [INTRODUCTION], list(sections())
    for section in wanted:
        figures = _figures(section.name, quick)
        if figures is None:
            say(f"{section.title} has no figures{'' if quick else ' of a full run'}; the page leaves it out.")
        else:
            parts.append(_text(section, figures))
    if len(parts) == 1:
        makes = " or ".join(f"make {group.make}" for group in GROUPS.values())
        raise SystemExit(
            f"There are no figures to write a page from. Run {makes} first"
            + ("." if quick else " (a quick run's figures are taken only with --quick).")
        )
    PAGE.write_text("\n".join(parts))
    say(f"{PAGE}: {len(parts) - 1} of {len(wanted)} sections")


def _figures(name: str, quick: bool) -> dict[str, Any] | None:
    for path in (BUILD / f"{name}.json", BUILD / f"{name}-quick.json"):
        if path.exists() and (quick or not path.stem.endswith("-quick")):
            return json.loads(path.read_text())
    return None


def _text(section: Section, figures: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    lines = [f"## {section.title}\n", section.answers]
    if figures["quick"]:
        lines.append(
            "**A QUICK run: few rows, short training, one seed. It shows that the benchmark works, not what Alula "
            "does.**\n"
        )
    for title, rows in figures["tables"].items():
        lines.append(f"### {title}\n\n{markdown(rows)}\n")
    notes = [f"- {name}: {value}" for name, value in figures["figures"].items() if isinstance(value, str)]
    if notes:
        lines.append("\n".join(notes) + "\n")
    for picture in figures["pictures"]:
        _draw(picture)
        lines.append(f"![{picture['title']}: {picture['y']} by {picture['x']}](benchmarks/{picture['name']}.png)\n")
    if figures["targets"]:
        lines.append("### Targets\n\n| | figure | target | |\n|---|---|---|---|")
    for entry in figures["targets"]:
        verdict = "met" if entry["met"] else "**missed**"
        lines.append(f"| {entry['what']} | {shown(entry['figure'])} | {entry['wanted']} | {verdict} |")
    command = f"QUICK=1 {figures['command']}" if figures["quick"] else figures["command"]
    lines.append(
        f"\n`{command}`: {figures['date']}, {_minutes(figures['seconds'])} on {figures['machine']}. "
        f"{_seeds(figures['seeds'])}. {versions}.\n"
    )
    return "\n".join(lines)


def _minutes(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute{'s' * (minutes > 1)}"


def _seeds(seeds: list[int]) -> str:
    return f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


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
