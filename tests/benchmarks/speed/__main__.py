"""Time searches in this process against other libraries: ``python -m tests.benchmarks.speed``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.benchmarks.report import Report, quick
from tests.benchmarks.speed import sparse


def main() -> int:
    """The exit status: 1 if any target was missed."""
    report = Report("speed-sparse", {"split": sparse.SPLIT, "training": 0}, "make bench-speed")
    with tempfile.TemporaryDirectory() as folder:
        sparse.run(report, quick(), Path(folder))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
