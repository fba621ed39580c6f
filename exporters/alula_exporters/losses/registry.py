"""Losses on labels by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

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
        A module that takes embeddings float32 (n, D) of unit length and labels int64 (n,) or bool (n, C), and returns a
        scalar. Its parameters, if any, are trained together with the encoder's.
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


def check_labels(loss: str, data: TrainingData) -> None:
    """Raise a `UsageError` if rows have several labels and a loss takes one.

    Args:
        loss: The loss.
        data: The rows.
    """
    if loss == "arcface" and data.train_labels is not None and data.train_labels.ndim == 2:
        raise UsageError(
            "The loss arcface learns a direction for the one label of a row, and these rows have several; take "
            "contrastive, triplet or adaptive-margin."
        )


def _adaptive_margin(data: TrainingData, dim: int, _: float | None) -> AdaptiveMarginLoss:
    return AdaptiveMarginLoss(dim, class_vectors(data))


def class_vectors(data: TrainingData) -> Tensor:
    """Meanings of the classes, float32 (C, e), for the adaptive margin.

    These are the given label vectors; else of rows that are vectors the mean of each class, from the mean of all, so
    that classes whose rows are alike may stay near each other; else one-hot vectors of unrelated classes.
    """
    if data.label_vectors is not None:
        return torch.from_numpy(data.label_vectors)
    if data.train.dtype != np.float32:
        return torch.eye(len(data.classes))
    rows, labels = torch.from_numpy(data.train), torch.from_numpy(data.labels)
    if labels.ndim == 2:
        sums, counts = labels.T.float() @ rows, labels.sum(0)[:, None]
    else:
        sums = torch.zeros(len(data.classes), data.dim).index_add_(0, labels, rows)
        counts = torch.bincount(labels, minlength=len(data.classes))[:, None]
    means = sums / counts.clamp_min(1) - rows.mean(0)
    return means.masked_fill(counts == 0, 0)


LABEL_LOSSES: Mapping[LabelLoss, Callable[[TrainingData, int, float | None], nn.Module]] = {
    "contrastive": lambda *_: ContrastiveLoss(),
    "triplet": lambda _, __, margin: TripletLoss() if margin is None else TripletLoss(margin),
    "arcface": lambda data, dim, _: ArcFaceLoss(len(data.classes), dim),
    "adaptive-margin": _adaptive_margin,
}
