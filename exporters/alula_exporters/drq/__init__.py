"""DRQ encoders: one training for all code lengths (Song et al., IJCAI 2019)."""

from alula_exporters.drq.config import DrqConfig
from alula_exporters.drq.export import export_drq
from alula_exporters.drq.model import LinearQuantizer, Quantizer, RecurrentQuantizer
from alula_exporters.drq.trainer import train_drq
from alula_exporters.drq.variants import PaperQuantizer, SeparateQuantizer

__all__ = [
    "DrqConfig",
    "LinearQuantizer",
    "PaperQuantizer",
    "Quantizer",
    "RecurrentQuantizer",
    "SeparateQuantizer",
    "export_drq",
    "train_drq",
]
