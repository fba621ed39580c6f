"""Contrastive losses: softmax over the rows of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from alula_exporters.labels import alike


class ContrastiveLoss(nn.Module):
    """The supervised contrastive loss (Khosla et al., NeurIPS 2020, L_out).

    mean_i -1/|P(i)| sum_{p in P(i)} log(exp(z_i z_p / tau) / sum_{a != i} exp(z_i z_a / tau)), with P(i) the other rows
    that share a label with i. The paper sums over i; the mean does not depend on the batch's size. Rows that share no
    label with another do not count as i; without any pair the loss is 0.

    For pairs, whose two rows share a label of their own, this is InfoNCE (van den Oord et al., 2018) in both
    directions, with all other rows of the batch for negatives:
    -log(exp(z_i z_j / tau) / sum_{a != i} exp(z_i z_a / tau)), j being the partner of i.

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
            labels: int64 (n,) or bool (n, C).
        """
        itself = torch.eye(len(labels), dtype=torch.bool)
        positives = alike(labels, labels) & ~itself
        # the smallest number, not -inf: a lone row's softmax is then no NaN
        logits = (embeddings @ embeddings.T / self.temperature).masked_fill(itself, torch.finfo(embeddings.dtype).min)
        counts = positives.sum(1)
        fits = functional.log_softmax(logits, dim=1).masked_fill(~positives, 0).sum(1) / counts.clamp_min(1)
        return -fits.sum() / (counts > 0).sum().clamp_min(1)
