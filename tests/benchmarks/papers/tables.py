"""Where the tables are found: every module ``tableN.py`` of this package is one."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from tests.benchmarks.report import Report


class Table(Protocol):
    """What a module ``tableN.py`` holds; the page shows TITLE, then ANSWERS, then the report's tables."""

    TITLE: str
    ANSWERS: str  # the question and how to read the table, in Markdown
    SEEDS: tuple[int, ...]  # of training; a quick run takes the first

    def run(self, report: Report, quick: bool) -> None:
        """Fill the report with rows, targets and pictures."""


def load_tables(wanted: Iterable[str] = ()) -> dict[str, Table]:
    """The tables by their numbers, all of them unless some are named."""
    there = sorted(path.stem.removeprefix("table") for path in Path(__file__).parent.glob("table[0-9]*.py"))
    chosen = list(wanted) or there
    missing = [number for number in chosen if number not in there]
    if missing:
        raise SystemExit(f"There is no table {', '.join(missing)}; there are {', '.join(there)}.")
    return {number: cast(Table, import_module(f"tests.benchmarks.papers.table{number}")) for number in chosen}
