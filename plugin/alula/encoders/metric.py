"""The metrics of collections, and the order of scores in each."""

from __future__ import annotations

from typing import Literal, get_args

Metric = Literal["COSINE", "IP", "L2"]
METRICS: tuple[Metric, ...] = get_args(Metric)
_SIMILARITIES = ("COSINE", "IP", "BM25")  # native metrics of Milvus included


def better_is_larger(metric: str) -> bool:
    """True for similarities (COSINE, IP, BM25), False for distances (L2, HAMMING)."""
    return metric.upper() in _SIMILARITIES
