"""Losses on labels, one per file: rows of one label come near to each other, others go away."""

from alula_exporters.losses.arcface import ArcFaceLoss
from alula_exporters.losses.contrastive import ContrastiveLoss, info_nce
from alula_exporters.losses.registry import LABEL_LOSSES, LabelLoss
from alula_exporters.losses.triplet import TripletLoss, semi_hard_triplet_loss

__all__ = [
    "LABEL_LOSSES",
    "ArcFaceLoss",
    "ContrastiveLoss",
    "LabelLoss",
    "TripletLoss",
    "info_nce",
    "semi_hard_triplet_loss",
]
