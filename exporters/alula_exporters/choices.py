"""Values that training options take, importable without torch."""

from __future__ import annotations

from typing import Literal

LabelLoss = Literal["contrastive", "triplet", "arcface", "adaptive-margin"]

Activation = Literal["top-k", "relu", "soft-threshold"]
Regulariser = Literal["flops", "l1", "none"]
FlopsLoss = Literal["distillation", LabelLoss]

Mode = Literal["default", "shared", "paper", "separate"]
DrqLoss = Literal["distortion", LabelLoss]

# lengths of a network's last layer, or of two that are joined
Dim = int | tuple[int, int]
IMAGE_DIM: Dim = 64
PAPER_DIM: Dim = (212, 300)  # of Song et al., IJCAI 2019
