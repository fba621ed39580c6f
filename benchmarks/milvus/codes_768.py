"""Codes against codes in this process: vectors of 768 numbers."""

from __future__ import annotations

from benchmarks.milvus import codes
from benchmarks.report import Report

TITLE = "codes against codes, 768 numbers"
ANSWERS = """\
The question of the part before, at twice the length: vectors of WordNet's glosses by all-mpnet-base-v2, 768 numbers,
computed in bfloat16. RaBitQ, SQ4 and SQ8 have as many bytes as numbers ask for, so more of them here. The tables are as
in the part before.
"""
SEEDS = codes.SEEDS


def measure(report: Report, *, quick: bool) -> None:
    """See `codes.measure_codes`."""
    codes.measure_codes(report, "mpnet", quick)
