"""The losses on labels by name, for a trainer to build one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch import nn

from alula_exporters.losses.arcface import ArcFaceLoss
from alula_exporters.losses.contrastive import ContrastiveLoss
from alula_exporters.losses.triplet import TripletLoss

LabelLoss = Literal["triplet", "arcface", "contrastive"]

# From the number of classes C and the embeddings' length D; `forward` takes embeddings float32 (n, D) of unit length
# and labels int64 (n,), and returns a scalar. Its parameters, where it has some, are trained beside the encoder's.
LABEL_LOSSES: Mapping[LabelLoss, Callable[[int, int], nn.Module]] = {
    "triplet": lambda _classes, _dim: TripletLoss(),
    "arcface": ArcFaceLoss,
    "contrastive": lambda _classes, _dim: ContrastiveLoss(),
}
