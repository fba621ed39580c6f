"""Losses of SPLADE's fine-tuning, one per file."""

from alula_exporters.splade.losses.in_batch import in_batch_loss
from alula_exporters.splade.losses.margin import margin_loss

__all__ = ["in_batch_loss", "margin_loss"]
