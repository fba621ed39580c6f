"""The adaptive margin loss (Cao et al., CVPR 2017; Song et al., IJCAI 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from alula_exporters.labels import alike
from alula_exporters.losses.triplet import semi_hard_triplet_loss

MARGIN = 2.5  # of the triplets, from the authors' published code; squared distances of unit rows are at most 4


class AdaptiveMarginLoss(nn.Module):
    """Adaptive margin + triplet, DRQ's loss of features (Song et al., IJCAI 2019).

    `adaptive_margin_loss` of tanh(A z), which is as long as the label vectors, plus `semi_hard_triplet_loss` of z, with
    equal weights.

    Args:
        dim: Length D of an embedding.
        label_vectors: float32 (C, e): meanings of the classes, for instance word vectors of their names. One-hot
            vectors are of unrelated classes: every margin is 1.

    Attributes:
        projection: A, float32 (e, D), trained along.
    """

    label_vectors: Tensor

    def __init__(self, dim: int, label_vectors: Tensor) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, label_vectors.shape[1])
        self.register_buffer("label_vectors", label_vectors)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: float32 (n, D), rows of unit length.
            labels: int64 (n,), class numbers, or bool (n, C).
        """
        margins = adaptive_margin_loss(self.projection(embeddings).tanh(), labels, self.label_vectors)
        return margins + semi_hard_triplet_loss(embeddings, alike(labels, labels), MARGIN)


def adaptive_margin_loss(features: Tensor, labels: Tensor, label_vectors: Tensor) -> Tensor:
    """mean_{n, j in Y_n, k} max(0, delta_jk - cos(z_n, v_j) + cos(z_n, v_k)).

    delta_jk = 1 - cos(v_j, v_k).

    The loss of "Deep Visual-Semantic Quantization", which "Deep Recurrent Quantization" (IJCAI 2019) trains its
    features with: the less two labels have to do with each other, the more a feature must prefer its own. k runs over
    all labels, as in both papers' published code; a feature's own labels thus may differ by their margin too. Features
    meet label vectors as they are, so a network ends in a layer of the label vectors' length.

    Args:
        features: float32 (n, e), z.
        labels: int64 (n,), class numbers, or 0/1 of any dtype (n, C), Y; a row without labels does not count.
        label_vectors: float32 (C, e), v, such as word vectors of the labels' names; of any length but 0.

    Returns:
        A scalar.
    """
    vectors = functional.normalize(label_vectors, dim=1)
    cosines = functional.normalize(features, dim=1) @ vectors.T
    # only the labels that a row has: all (n, C, C) would be too many
    if labels.ndim == 1:
        rows, held = torch.arange(len(labels)), labels
    else:
        rows, held = labels.nonzero(as_tuple=True)
    margins = 1 - vectors.index_select(0, held) @ vectors.T
    cosines = cosines.index_select(0, rows)
    hinges = (margins - cosines.gather(1, held[:, None]) + cosines).relu()
    return hinges.sum() / max(1, hinges.numel())
