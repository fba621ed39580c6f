"""Losses of a sparse encoder, one per file, and its search cost."""

from alula_exporters.flops.cost import count_dims, expected_flops, flops_floor
from alula_exporters.flops.losses.distillation import distillation_loss
from alula_exporters.flops.losses.flops import flops_regulariser
from alula_exporters.flops.losses.l1 import l1_regulariser
from alula_exporters.flops.weight import FlopsController, QuadraticRamp

__all__ = [
    "FlopsController",
    "QuadraticRamp",
    "count_dims",
    "distillation_loss",
    "expected_flops",
    "flops_floor",
    "flops_regulariser",
    "l1_regulariser",
]
