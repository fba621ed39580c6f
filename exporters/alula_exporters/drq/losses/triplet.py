"""The triplet loss that the quantised features are trained with (Song et al., IJCAI 2019)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from alula_exporters.losses import semi_hard_triplet_loss

MARGIN = 2.5  # of the authors' published code; squared distances of unit rows are at most 4


def multi_label_triplet_loss(features: Tensor, labels: Tensor, margin: float = MARGIN) -> Tensor:
    """The semi-hard triplet loss of the features' directions; rows are alike when they share a label.

    Args:
        features: float32 (n, d), of any length but 0.
        labels: int64 (n,), class numbers, or 0/1 of any dtype (n, C).
        margin: Between squared distances of unit rows.

    Returns:
        A scalar.
    """
    if labels.ndim == 1:
        alike = labels[:, None] == labels
    else:
        held = labels.to(features.dtype)
        alike = held @ held.T > 0
        alike.fill_diagonal_(True)  # a row without labels is no negative of itself
    return semi_hard_triplet_loss(functional.normalize(features, dim=1), alike, margin)
