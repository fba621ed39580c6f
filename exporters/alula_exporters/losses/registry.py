"""The losses on labels by name, for a trainer to build one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from alula_exporters.data import TrainingData
from alula_exporters.losses.adaptive_margin import AdaptiveMarginLoss
from alula_exporters.losses.arcface import ArcFaceLoss
from alula_exporters.losses.contrastive import ContrastiveLoss
from alula_exporters.losses.triplet import TripletLoss

LabelLoss = Literal["triplet", "arcface", "contrastive", "adaptive-margin"]


def label_loss(name: LabelLoss, data: TrainingData, dim: int) -> nn.Module:
    """Build a loss.

    Args:
        name: Which.
        data: The rows, for their classes.
        dim: Length D of an embedding.

    Returns:
        Takes embeddings float32 (n, D) of unit length and labels int64 (n,), gives a scalar. Its parameters, where it
        has some, are trained beside the encoder's.
    """
    if name == "triplet":
        return TripletLoss()
    if name == "contrastive":
        return ContrastiveLoss()
    if name == "arcface":
        return ArcFaceLoss(len(data.classes), dim)
    vectors = data.label_vectors
    return AdaptiveMarginLoss(dim, torch.eye(len(data.classes)) if vectors is None else torch.from_numpy(vectors))
