"""Run the parts asked for, all that there are by default: ``python -m tests.benchmarks.loading [faults memory]``."""

from __future__ import annotations

import sys

from tests.benchmarks.loading.parts import load_parts
from tests.benchmarks.report import Report, quick, say


def main(wanted: list[str]) -> int:
    """The exit status: 1 if any part missed a target."""
    status = 0
    for name, part in load_parts(wanted).items():
        say(f"\n## {part.TITLE}")
        report = Report(f"loading-{name}", {"all": part.SEED}, f'make bench-load PARTS="{name}"')
        part.measure(report, quick=quick())
        status |= report.finish()
    say("\nThe page: python -m tests.benchmarks.page")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
