"""What a quantiser is trained on, one loss per file."""

from alula_exporters.drq.losses.adaptive_margin import adaptive_margin_loss
from alula_exporters.drq.losses.central import joint_central_loss
from alula_exporters.drq.losses.distortion import prefix_distortions
from alula_exporters.drq.losses.triplet import multi_label_triplet_loss

__all__ = ["adaptive_margin_loss", "joint_central_loss", "multi_label_triplet_loss", "prefix_distortions"]
