"""Losses on labels, one per file."""

from alula_exporters.losses.adaptive_margin import AdaptiveMarginLoss, adaptive_margin_loss
from alula_exporters.losses.arcface import ArcFaceLoss
from alula_exporters.losses.contrastive import ContrastiveLoss
from alula_exporters.losses.registry import LABEL_LOSSES, check_labels, check_margin, class_vectors, label_loss
from alula_exporters.losses.triplet import TripletLoss, semi_hard_triplet_loss

__all__ = [
    "LABEL_LOSSES",
    "AdaptiveMarginLoss",
    "ArcFaceLoss",
    "ContrastiveLoss",
    "TripletLoss",
    "adaptive_margin_loss",
    "check_labels",
    "check_margin",
    "class_vectors",
    "label_loss",
    "semi_hard_triplet_loss",
]
