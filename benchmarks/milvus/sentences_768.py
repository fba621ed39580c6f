"""Sentence vectors of 768 numbers inside a Milvus server, searched in turns."""

from __future__ import annotations

from benchmarks.milvus import sentences
from benchmarks.report import Report

TITLE = "sentence vectors of 768 numbers"
ANSWERS = """\
The question of 384 numbers, at twice the length: what does a search in a Milvus 2.3.5 server cost, and what does it
find? 116,659 vectors of WordNet's glosses by all-mpnet-base-v2, computed in bfloat16, cosine; 500 others are queries,
asked of every index type and setting in turn. DRQ has 512 sign bits, the default at this length, and 256; no code is
stored. IVF_PQ has a byte for 8 numbers. MRR is the mean of 1 / rank of the nearest row, 0 where it is not among the
ten. Memory and disk are counted as in the part before.
"""
SEEDS = sentences.SEEDS
SWEEPS: sentences.Sweeps = {
    256: {None: ({}, {"candidates": 300})},
    512: {None: ({}, {"candidates": 50}, {"candidates": 60}, {"candidates": 100}), 0: ({},)},
}


def measure(report: Report, *, quick: bool) -> None:
    """See `sentences.measure_sentences`."""
    sentences.measure_sentences(report, "mpnet", SWEEPS, quick=quick)
