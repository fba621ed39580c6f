"""The adaptive margin loss: features turn to the vectors of their labels (Cao et al., CVPR 2017; Song et al., 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def adaptive_margin_loss(features: Tensor, labels: Tensor, label_vectors: Tensor) -> Tensor:
    """mean_{n, j in Y_n, k} max(0, delta_jk - cos(z_n, v_j) + cos(z_n, v_k)), delta_jk = 1 - cos(v_j, v_k).

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
