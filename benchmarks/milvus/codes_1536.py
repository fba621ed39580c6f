"""Codes against codes in this process: vectors of 1,536 numbers."""

from __future__ import annotations

from benchmarks.milvus import codes
from benchmarks.report import Report

TITLE = "codes against codes, 1,536 numbers"
ANSWERS = """\
The question once more, at the length of many vectors that services sell: 1,536 numbers, which are those of a synset's
words and of its gloss, each by all-mpnet-base-v2, side by side. The tables are as in the parts before, with fewer
lengths, and with RQ in principal axes alone.
"""
SEEDS = codes.SEEDS


def measure(report: Report, *, quick: bool) -> None:
    """See `codes.measure_codes`."""
    codes.measure_codes(report, "mpnet-pairs", quick)
