"""Contrastive losses: a softmax picks the rows that belong together out of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ContrastiveLoss(nn.Module):
    """The supervised contrastive loss (Khosla et al., NeurIPS 2020, L_out).

    mean_i -1/|P(i)| sum_{p in P(i)} log(exp(z_i z_p / tau) / sum_{a != i} exp(z_i z_a / tau)), with P(i) the other rows
    of i's label. The paper sums over i; the mean does not depend on the batch's size. Rows without another of their
    label do not count as i; without any pair the loss is 0.

    Args:
        temperature: tau; the default is the paper's.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: float32 (n, D), rows of unit length.
            labels: int64 (n,).
        """
        itself = torch.eye(len(labels), dtype=torch.bool)
        positives = (labels[:, None] == labels) & ~itself
        # the smallest number, not -inf: a lone row's softmax is then no NaN
        logits = (embeddings @ embeddings.T / self.temperature).masked_fill(itself, torch.finfo(embeddings.dtype).min)
        counts = positives.sum(1)
        fits = functional.log_softmax(logits, dim=1).masked_fill(~positives, 0).sum(1) / counts.clamp_min(1)
        return -fits.sum() / (counts > 0).sum().clamp_min(1)


def info_nce(queries: Tensor, rows: Tensor, temperature: float = 0.07) -> Tensor:
    """InfoNCE of pairs, in both directions (van den Oord et al., 2018, equation 4, with cosines / temperature).

    The mean of -log softmax_j(q_i r_j / tau)[i] and -log softmax_j(q_j r_i / tau)[i]: query i finds row i among all
    rows, and row i finds query i among all queries.

    Args:
        queries: float32 (n, D), rows of unit length.
        rows: float32 (n, D), rows of unit length; row i belongs to query i.
        temperature: tau.

    Returns:
        A scalar, in nats.
    """
    logits = queries @ rows.T / temperature
    own = torch.arange(len(queries))
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
