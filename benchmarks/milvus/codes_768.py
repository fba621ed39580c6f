"""Codes against codes in this process: vectors of 768 numbers."""

from __future__ import annotations

from benchmarks.milvus import codes
from benchmarks.report import Report

TITLE = "codes against codes, 768 numbers"
ANSWERS = """\
The question of the part before, at twice the length: vectors of WordNet's glosses by all-mpnet-base-v2, 768 numbers,
computed in bfloat16. RaBitQ, SQ4 and SQ8 have as many bytes as numbers ask for, so more of them here. RQ is shown in as
many principal axes as DRQ takes, too, and "Reconstruction" is the mean squared error (vectors have length 1) of the
held-out queries, beside the numbers of the model that the codes need, those of DRQ counted in its encoder file. RQ
learns from a third of the rows that DRQ learns from; table 4 of the papers has both on the same rows. The training of
768 bits shared both cores with another training, which made it several times as slow.
"""
SEEDS = codes.SEEDS


def measure(report: Report, *, quick: bool) -> None:
    """See `codes.measure_codes`."""
    codes.measure_codes(report, "mpnet", quick)
