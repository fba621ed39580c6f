"""Losses on labels by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from alula_exporters.choices import LabelLoss
from alula_exporters.data import TrainingData
from alula_exporters.losses.adaptive_margin import AdaptiveMarginLoss
from alula_exporters.losses.arcface import ArcFaceLoss
from alula_exporters.losses.contrastive import ContrastiveLoss
from alula_exporters.losses.triplet import TripletLoss


def label_loss(name: LabelLoss, data: TrainingData, dim: int) -> nn.Module:
    """Build a loss.

    Args:
        name: A key of `LABEL_LOSSES`.
        data: The rows, for their classes.
        dim: Length D of an embedding.

    Returns:
        A module that takes embeddings float32 (n, D) of unit length and labels int64 (n,), and returns a scalar. Its
        parameters, if any, are trained together with the encoder's.
    """
    return LABEL_LOSSES[name](data, dim)


def _adaptive_margin(data: TrainingData, dim: int) -> AdaptiveMarginLoss:
    vectors = data.label_vectors
    return AdaptiveMarginLoss(dim, torch.eye(len(data.classes)) if vectors is None else torch.from_numpy(vectors))


LABEL_LOSSES: Mapping[LabelLoss, Callable[[TrainingData, int], nn.Module]] = {
    "contrastive": lambda _, __: ContrastiveLoss(),
    "triplet": lambda _, __: TripletLoss(),
    "arcface": lambda data, dim: ArcFaceLoss(len(data.classes), dim),
    "adaptive-margin": _adaptive_margin,
}
