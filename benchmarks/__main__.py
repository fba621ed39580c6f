"""Run the parts of a group, all by default: ``python -m benchmarks papers [1 4]``."""

from __future__ import annotations

import sys

from benchmarks.groups import GROUPS
from benchmarks.report import quick, say


def main(group: str, *wanted: str) -> int:
    """The exit status: 1 if any part missed a target."""
    reports = []
    for name, part in GROUPS[group].parts(wanted).items():
        say(f"\n## {GROUPS[group].heading.format(name)}{part.TITLE}")
        report = GROUPS[group].report(name, part.SEEDS[:1] if quick() else part.SEEDS)
        part.measure(report, quick=quick())
        report.finish()
        reports.append(report)
    say("\nAll targets" + (" of a quick run:" if quick() else ":"))
    for report in reports:
        report.say_verdicts()
    say("\nThe page: python -m benchmarks.page")
    return 0 if all(report.met for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
