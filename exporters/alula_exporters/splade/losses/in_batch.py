"""In-batch negatives: a query's own document against those of the other queries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def in_batch_loss(scores: Tensor, own: Tensor) -> Tensor:
    """Mean of -log(exp(s_ii) / sum_j exp(s_ij)); j is i or no document of query i.

    SPLADE's ranking loss (Formal et al., SIGIR 2021, equation 5), where the documents of a query other than the i-th
    are left out: they may answer it too.

    Args:
        scores: float32 (m, n), n >= m: query i's score of document j; document i answers query i.
        own: bool (m, n): True where document j is one of query i's.

    Returns:
        A scalar, in nats.
    """
    answers = torch.eye(*scores.shape, dtype=torch.bool, device=scores.device)
    negatives = scores.masked_fill(own & ~answers, -torch.inf)
    return functional.cross_entropy(negatives, torch.arange(len(scores), device=scores.device))
