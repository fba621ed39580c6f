"""Run the tables asked for, all that there are by default: ``python -m tests.benchmarks.papers [1 4]``."""

from __future__ import annotations

import sys

from tests.benchmarks.papers.tables import load_tables
from tests.benchmarks.report import Report, quick, say


def main(wanted: list[str]) -> int:
    """The exit status: 1 if any table missed a target."""
    status = 0
    for number, table in load_tables(wanted).items():
        say(f"\n## Table {number}: {table.TITLE}")
        seeds = {"split": 0, "training": list(table.SEEDS[:1] if quick() else table.SEEDS)}
        report = Report(f"papers-{number}", seeds, f'make bench-papers TABLES="{number}"')
        table.run(report, quick())
        status |= report.finish()
    say("\nThe page: python -m tests.benchmarks.page")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
