"""The triplet loss with semi-hard negatives (FaceNet, Schroff et al., CVPR 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alula_exporters.labels import alike


class TripletLoss(nn.Module):
    """`semi_hard_triplet_loss` of rows that are alike when they share a label.

    Args:
        margin: alpha; the default is FaceNet's.
    """

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: float32 (n, D), rows of unit length.
            labels: int64 (n,) or bool (n, C).
        """
        return semi_hard_triplet_loss(embeddings, alike(labels, labels), self.margin)


def semi_hard_triplet_loss(embeddings: Tensor, alike: Tensor, margin: float) -> Tensor:
    """mean_{a,p} max(0, |a - p|^2 - |a - n(a, p)|^2 + margin).

    The mean is over all ordered pairs of different rows that are alike.

    n(a, p) is the nearest row not alike a that is farther from a than p is (the paper's equation 4; one farther by more
    than the margin costs nothing, so the loss sees those within the margin only). Where all are nearer it is the
    farthest of them: the hardest ones early in training would make all rows collapse into one.

    Pairs without any negative do not count; without pairs the loss is 0.

    Args:
        embeddings: float32 (n, D), rows of unit length.
        alike: bool (n, n), symmetric, true on the diagonal.
        margin: alpha.

    Returns:
        A scalar.
    """
    distances = 2 - 2 * embeddings @ embeddings.T
    with torch.no_grad():
        ranked, order = distances.masked_fill(alike, torch.inf).sort(dim=1, stable=True)
        negatives = (~alike).sum(1, keepdim=True)
        farther = torch.searchsorted(ranked, distances, right=True)
        chosen = order.gather(1, torch.minimum(farther, negatives - 1).clamp_min(0))
        pairs = alike & (negatives > 0)
        pairs.fill_diagonal_(False)
    losses = (margin + distances - distances.gather(1, chosen)).relu()
    return losses.masked_fill(~pairs, 0).sum() / pairs.sum().clamp_min(1)
