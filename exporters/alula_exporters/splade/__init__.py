"""Fine-tuning of SPLADE models from pairs of texts, at a requested search cost."""

from alula_exporters.splade.config import SpladeConfig
from alula_exporters.splade.pairs import Pairs, read_pairs
from alula_exporters.splade.trainer import train_splade

__all__ = ["Pairs", "SpladeConfig", "read_pairs", "train_splade"]
