"""The parts of the loading benchmark: each a module of this package, and a section of the page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tests.benchmarks.loading import faults, memory, scale, throughput
from tests.benchmarks.report import Report


class Part(Protocol):
    """What a part holds; the page shows TITLE, then ANSWERS, then the report's tables."""

    TITLE: str
    ANSWERS: str  # the question and how to read the tables, in Markdown
    SEED: int

    def measure(self, report: Report, *, quick: bool) -> None:
        """Fill the report with rows and targets."""


PARTS: dict[str, Part] = {"faults": faults, "throughput": throughput, "memory": memory, "scale": scale}


def load_parts(wanted: Iterable[str] = ()) -> dict[str, Part]:
    """The parts by name, all of them unless some are named."""
    chosen = list(wanted) or list(PARTS)
    missing = [name for name in chosen if name not in PARTS]
    if missing:
        raise SystemExit(f"There is no part {', '.join(missing)}; there are {', '.join(PARTS)}.")
    return {name: PARTS[name] for name in chosen}
