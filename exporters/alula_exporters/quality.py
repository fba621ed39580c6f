"""Quality of an encoder on unseen rows: exact neighbours and recall."""

from __future__ import annotations

import torch
from torch import Tensor

from alula.encoders import Metric
from alula_exporters.inputs import unit_rows
from alula_exporters.labels import alike

# Enough queries for two digits, few enough that judging is a small part of the time of training.
QUERIES = 200
ROWS = 20_000
NEIGHBOURS = 10


def similarity(queries: Tensor, rows: Tensor, metric: Metric) -> Tensor:
    """The metric as a similarity: larger is nearer.

    L2 gives minus *half* the squared distance, which for unit vectors is the cosine less 1: so one temperature fits
    all three metrics.

    Args:
        queries: float32 (m, d).
        rows: float32 (n, d).
        metric: COSINE, IP or L2.

    Returns:
        float32 (m, n).
    """
    if metric == "COSINE":
        queries, rows = unit_rows(queries)[0], unit_rows(rows)[0]
    products = queries @ rows.T
    if metric != "L2":
        return products
    return products - 0.5 * (rows.square().sum(1)[None, :] + queries.square().sum(1)[:, None])


def exact_neighbours(queries: Tensor, rows: Tensor, metric: Metric, count: int = NEIGHBOURS) -> Tensor:
    """Numbers of the ``count`` nearest rows, int64 (m, count)."""
    return similarity(queries, rows, metric).topk(min(count, len(rows)), dim=1).indices


def share_found(truth: Tensor, scores: Tensor, candidates: int) -> float:
    """Share of the true neighbours among the rows with the highest scores.

    This is recall@k after exact re-ranking.

    Args:
        truth: int64 (m, k): numbers of the true neighbours.
        scores: float32 (m, n): larger is nearer.
        candidates: Number of best rows that count.
    """
    best = scores.topk(min(candidates, scores.shape[1]), dim=1).indices
    marked = torch.zeros(scores.shape, dtype=torch.bool).scatter_(1, best, True)
    return float(marked.gather(1, truth).float().mean())


def label_quality(scores: Tensor, labels: Tensor, row_labels: Tensor) -> dict[str, float]:
    """Ranking quality when rows that share a label with the query are relevant.

    Args:
        scores: float32 (m, n): larger is nearer.
        labels: int64 (m,) or bool (m, C): of the queries.
        row_labels: int64 (n,) or bool (n, C): of the rows.

    Returns:
        ``recall@1 by label``: share of queries whose best row is relevant; ``mAP by label``: mean over the queries
        of the average precision, the mean of the precision at the rank of each right row, over all n rows. Queries
        without a right row are left out.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    right = alike(labels, row_labels).gather(1, order).float()
    right = right[right.any(dim=1)]
    precision = right.cumsum(1) / torch.arange(1, right.shape[1] + 1)
    average = (precision * right).sum(1) / right.sum(1)
    return {"recall@1 by label": float(right[:, 0].mean()), "mAP by label": float(average.mean())}
