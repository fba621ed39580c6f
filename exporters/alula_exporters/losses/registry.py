"""Losses on labels by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from alula.errors import UsageError
from alula_exporters.choices import LabelLoss
from alula_exporters.data import TrainingData
from alula_exporters.losses.adaptive_margin import AdaptiveMarginLoss
from alula_exporters.losses.arcface import ArcFaceLoss
from alula_exporters.losses.contrastive import ContrastiveLoss
from alula_exporters.losses.triplet import TripletLoss


def label_loss(name: LabelLoss, data: TrainingData, dim: int, margin: float | None = None) -> nn.Module:
    """Build a loss.

    Args:
        name: A key of `LABEL_LOSSES`.
        data: The rows, for their classes.
        dim: Length D of an embedding.
        margin: Of the triplet loss; None for its default.

    Returns:
        A module that takes embeddings float32 (n, D) of unit length and labels int64 (n,), and returns a scalar. Its
        parameters, if any, are trained together with the encoder's.
    """
    return LABEL_LOSSES[name](data, dim, margin)


def check_margin(margin: float | None, loss: str) -> None:
    """Raise a `UsageError` for a margin of another loss than triplet, or none over 0.

    Args:
        margin: None for the default.
        loss: The loss that it is given for.
    """
    if margin is None:
        return
    if loss != "triplet":
        raise UsageError(f"A margin belongs to the loss triplet, and the loss is {loss}; leave the margin out.")
    if not 0 < margin < math.inf:
        raise UsageError(f"margin is {margin:g}; it must be a positive number.")


def _adaptive_margin(data: TrainingData, dim: int, _: float | None) -> AdaptiveMarginLoss:
    vectors = data.label_vectors
    return AdaptiveMarginLoss(dim, torch.eye(len(data.classes)) if vectors is None else torch.from_numpy(vectors))


LABEL_LOSSES: Mapping[LabelLoss, Callable[[TrainingData, int, float | None], nn.Module]] = {
    "contrastive": lambda *_: ContrastiveLoss(),
    "triplet": lambda _, __, margin: TripletLoss() if margin is None else TripletLoss(margin),
    "arcface": lambda data, dim, _: ArcFaceLoss(len(data.classes), dim),
    "adaptive-margin": _adaptive_margin,
}
