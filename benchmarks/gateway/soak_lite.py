"""The hour of faults before Milvus Lite's engine."""

from __future__ import annotations

from benchmarks.gateway import soak
from benchmarks.report import Report

TITLE = "an hour of faults before Milvus Lite"
ANSWERS = """\
The same as `soak`, before Milvus Lite 2.5's engine on a port, with FLOPS_SPARSE in the place of DRQ. This server loses
hardly any rows when it is killed, and starts again within a second, so it is killed far more often.
"""

SEEDS = soak.SEEDS


def measure(report: Report, *, quick: bool) -> None:
    """Run the soak; see `soak.run`."""
    soak.run(report, soak.LITE, quick=quick)
