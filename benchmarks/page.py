"""Write docs/benchmarks from the figures of runs: ``python -m benchmarks.page``.

Each group of benchmarks has a page, and ``README.md`` counts the targets that each section met or missed. A section
without new figures stays as it is on the page, with the question that its figures answer.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.groups import GROUPS, Group
from benchmarks.report import BUILD, markdown, say, shown

FOLDER = Path("docs/benchmarks")
INTRODUCTION = """\
# Benchmarks

Each page states the question of a section before its figures, and the targets met or missed after them, with the
command, date, machine and seeds of the run. Misses are listed here.
"""
PAGES = {
    "milvus": "A search inside Milvus: recall, latency and bytes beside Milvus's own index types",
    "papers": "The encoders against what would be used instead: L1, faiss's PQ, OPQ, RQ, LSH and HNSW",
    "loading": "`alula load`: faults, rows per second, memory",
    "speed": "Searches in one process against faiss, scipy and Seismic, and inside Milvus Lite 3",
    "gateway": "The gateway: added latency, throughput, an hour of faults",
}
VERDICT = re.compile(r"^\| (?P<what>.*) \| (?P<figure>[^|]*) \| (?P<wanted>[^|]*) \| (?P<met>met|\*\*missed\*\*) \|$")


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Args:
        name: Its figures are in ``build/bench/NAME.json``.
        title: Its heading.
        answers: The question, and how to read the tables, in Markdown.
    """

    name: str
    title: str
    answers: str


def sections(group: Group) -> Iterator[Section]:
    """The sections of one group's page, in order."""
    for name, part in group.parts().items():
        if part.ANSWERS is not None:
            yield Section(f"{group.name}-{name}", group.heading.format(name) + part.TITLE, part.ANSWERS)


@click.command()
@click.option("--quick", is_flag=True, help="Use the figures of quick runs where a full run left none.")
def main(quick: bool) -> None:
    """Write docs/benchmarks from the figures in build/bench."""
    summary = [INTRODUCTION, "| page | targets met | missed |", "|---|---|---|"]
    missed: list[str] = []
    for group in GROUPS.values():
        page = FOLDER / f"{group.name}.md"
        text = _page(group, page.read_text() if page.exists() else "", quick=quick)
        if text is None:
            continue
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text)
        targets = [found for line in text.splitlines() if (found := VERDICT.match(line))]
        failed = [found for found in targets if found["met"] != "met"]
        link = f"[{PAGES[group.name]}]({page.name})"
        summary.append(f"| {link}, `make {group.make}` | {len(targets) - len(failed)} | {len(failed)} |")
        missed += [f"| {group.name} | {found['what']} | {found['figure']} | {found['wanted']} |" for found in failed]
    if len(summary) == 3:
        makes = " or ".join(f"make {group.make}" for group in GROUPS.values())
        raise SystemExit(
            f"There are no figures to write a page from. Run {makes} first"
            + ("." if quick else " (the figures of a quick run need --quick).")
        )
    if missed:
        summary += ["\n## Missed\n", "| page | target | figure | wanted |", "|---|---|---|---|", *missed]
    (FOLDER / "README.md").write_text("\n".join(summary) + "\n")
    say(f"{FOLDER}: {len(summary)} lines in README.md")


def _page(group: Group, before: str, *, quick: bool) -> str | None:
    """A group's page; None if neither a run nor the page of before has figures for it."""
    parts = []
    kept = {_key(title): f"## {title}\n{body}" for title, body in _split(before)}
    for section in sections(group):
        figures = _figures(section.name, quick)
        if figures is not None:
            parts.append(_text(section, figures))
        elif _key(section.title) in kept:
            parts.append(kept[_key(section.title)])
    if not parts:
        return None
    return f"# {PAGES[group.name]}\n\n" + "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _key(title: str) -> str:
    """A table's number, which it keeps under another title; else the title."""
    numbered = re.match(r"Table \d+", title)
    return numbered[0] if numbered else title


def _split(text: str) -> Iterator[tuple[str, str]]:
    """The sections of a page by title."""
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        yield title, body


def _figures(name: str, quick: bool) -> dict[str, Any] | None:
    for path in (BUILD / f"{name}.json", BUILD / f"{name}-quick.json"):
        if path.exists() and (quick or not path.stem.endswith("-quick")):
            return json.loads(path.read_text())
    return None


def _text(section: Section, figures: Mapping[str, Any]) -> str:
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
        lines.append(f"![{picture['title']}: {picture['y']} by {picture['x']}]({picture['name']}.png)\n")
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


def _draw(picture: Mapping[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = picture["lines"]
    beside = len(lines) > 6  # a legend inside would lie on points
    figure, axes = pyplot.subplots(figsize=(9 if beside else 7, 4.5), layout="constrained")
    dashes = itertools.cycle(("--", "-.", ":", (0, (8, 4))))
    for number, (label, points) in enumerate(lines.items()):
        style: dict[str, Any]
        if label.startswith("dense"):  # a level that all others are compared with
            style = {"linestyle": next(dashes), "color": "grey"}
        else:  # there are ten colours
            style = {"marker": "so"[number < 10], "markersize": 4, "linestyle": "-" if number < 10 else ":"}
        axes.plot(*zip(*points, strict=True), label=label, **style)
    if "x" in picture["log"]:
        axes.set_xscale("log")
    if "y" in picture["log"]:
        axes.set_yscale("log")
    axes.set(title=picture["title"], xlabel=picture["x"], ylabel=picture["y"])
    axes.grid(alpha=0.3)
    if beside:
        figure.legend(loc="outside right upper", fontsize="small")
    else:
        axes.legend(fontsize="small")
    # no date or version in the file: the same figures give the same bytes
    figure.savefig(FOLDER / f"{picture['name']}.png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
