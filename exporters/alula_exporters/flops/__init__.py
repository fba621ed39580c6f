"""FLOPS encoders: sparse rows of bounded search cost (Paria et al., ICLR 2020)."""

from alula_exporters.flops.config import FlopsConfig
from alula_exporters.flops.export import export_flops
from alula_exporters.flops.model import SparseEncoder
from alula_exporters.flops.trainer import train_flops

__all__ = ["FlopsConfig", "SparseEncoder", "export_flops", "train_flops"]
