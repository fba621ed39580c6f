"""DRQ encoders: one training for all code lengths (Song et al., IJCAI 2019)."""

from alula_exporters.drq.config import DrqConfig
from alula_exporters.drq.export import export_drq
from alula_exporters.drq.model import Quantizer, RecurrentQuantizer
from alula_exporters.drq.trainer import train_drq
from alula_exporters.drq.variants import SeparateQuantizer, SharedQuantizer

__all__ = [
    "DrqConfig",
    "Quantizer",
    "RecurrentQuantizer",
    "SeparateQuantizer",
    "SharedQuantizer",
    "export_drq",
    "train_drq",
]
