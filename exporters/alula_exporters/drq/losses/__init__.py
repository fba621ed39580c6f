"""Losses of a quantiser, one per file."""

from alula_exporters.drq.losses.central import joint_central_loss
from alula_exporters.drq.losses.distortion import prefix_distortions

__all__ = ["joint_central_loss", "prefix_distortions"]
