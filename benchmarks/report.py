"""The report of a benchmark: tables, pictures, targets met and missed, JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alula.evaluation.results import machine

BUILD = Path("build/bench")
PACKAGES = ("alula", "pymilvus", "milvus-lite", "onnxruntime", "numpy", "torch", "faiss-cpu")


def quick() -> bool:
    """True for a short run on a subset (QUICK=1)."""
    return os.environ.get("QUICK", "") not in ("", "0")


def say(text: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@dataclass
class Report:
    """The figures of one benchmark.

    Args:
        name: The benchmark; its figures go to ``build/bench/NAME.json``.
        seeds: Seeds that the figures depend on; data are split by the first.
        command: The command that repeats it.
    """

    name: str
    seeds: list[int]
    command: str
    targets: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def target(self, what: str, figure: float, wanted: str, met: bool) -> None:
        """Record a figure that has a target."""
        self.targets.append({"what": what, "figure": figure, "wanted": wanted, "met": bool(met)})

    def at_least(self, what: str, figure: float, least: float) -> None:
        """Record a figure that must not fall under a bound."""
        self.target(what, figure, f">= {least:g}", figure >= least)

    def at_most(self, what: str, figure: float, most: float) -> None:
        """Record a figure that must not exceed a bound."""
        self.target(what, figure, f"<= {most:.4g}", figure <= most)

    def row(self, table: str, **cells: Any) -> None:
        """Add a row to a table, and print it at once."""
        self.tables.setdefault(table, []).append(cells)
        say("  " + "  ".join(f"{name} {shown(value)}" for name, value in cells.items()))

    def picture(
        self,
        name: str,
        title: str,
        x: str,
        y: str,
        lines: Mapping[str, list[tuple[float, float]]],
        *,
        log: str = "",
    ) -> None:
        """Record what a picture shows; whoever renders the figures draws it.

        Args:
            name: The picture's file, without its ending.
            title: Its title.
            x: Label of the horizontal axis.
            y: Label of the vertical axis.
            lines: Points (x, y) of each line, by the line's name.
            log: Which axes are logarithmic: "", "x" or "xy".
        """
        self.pictures.append({"name": name, "title": title, "x": x, "y": y, "lines": dict(lines), "log": log})

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """Announce a step, time it, and keep its seconds among the figures."""
        say(f"\n{what} ...")
        started = time.perf_counter()
        yield
        self.figures[f"seconds: {what}"] = time.perf_counter() - started
        say(f"  {self.figures[f'seconds: {what}']:.0f} s")

    @property
    def met(self) -> bool:
        """True if every target was met."""
        return all(entry["met"] for entry in self.targets)

    def finish(self) -> int:
        """Print tables and verdicts and write the JSON; returns 1 if a target was missed."""
        for title, rows in self.tables.items():
            say(f"\n### {title}\n")
            say(markdown(rows))
        about = {
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            "machine": machine(),
            "quick": quick(),
            "seconds": round(time.perf_counter() - self.started),
            "versions": {name: version(name) for name in PACKAGES},
        }
        BUILD.mkdir(parents=True, exist_ok=True)
        path = BUILD / f"{self.name}{'-quick' if quick() else ''}.json"
        path.write_text(json.dumps(asdict(self) | about, indent=1, default=float) + "\n")
        say(f"\n{about['date']}, {about['machine']}, seeds {self.seeds}, {about['seconds']} s. Figures: {path}\n")
        self.say_verdicts()
        return 0 if self.met else 1

    def say_verdicts(self) -> None:
        """Print a line for each target: met or missed, the figure, the target."""
        for entry in self.targets:
            verdict = "met" if entry["met"] else "MISSED"
            say(f"{verdict:<7} {entry['what']}: {shown(entry['figure'])} (target {entry['wanted']})")


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table; cells that a row lacks stay empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(shown(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A cell or figure as text."""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
