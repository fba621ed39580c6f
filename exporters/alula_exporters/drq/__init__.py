"""DRQ encoders: one shared codebook, one training run, every code length (Song et al., IJCAI 2019)."""

from alula_exporters.drq.export import export_drq
from alula_exporters.drq.model import RecurrentQuantizer
from alula_exporters.drq.trainer import DrqConfig, train_drq

__all__ = ["DrqConfig", "RecurrentQuantizer", "export_drq", "train_drq"]
