"""Run the parts asked for, all that there are by default: ``python -m tests.benchmarks.loading [faults memory]``."""

from __future__ import annotations

import sys

import click

from tests.benchmarks.loading import faults
from tests.benchmarks.report import Report, quick, say


@click.command()
@click.argument("parts", nargs=-1)
@click.option("--only", default="", help="Faults: only those of which function, engine and sink contain this text.")
@click.option("--runs", type=int, help="Faults: so many runs of each.")
def main(parts: tuple[str, ...], only: str, runs: int | None) -> None:
    report = Report("loading-faults", {"moments": faults.SEED}, 'make bench-load PARTS="faults"')
    faults.measure(report, quick=quick(), only=only, runs=runs)
    sys.exit(report.finish())


if __name__ == "__main__":
    main()
