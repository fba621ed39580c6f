"""Train sparse and binary-code encoders and export them to ONNX.

Names are handed on lazily, so that ``alula --help`` (which loads `alula_exporters.cli`) never waits for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alula_exporters.card import write_card
    from alula_exporters.checkpoint import Checkpoint
    from alula_exporters.data import TrainingData, load_training_data, make_training_data
    from alula_exporters.dense import BackboneConfig, train_backbone
    from alula_exporters.drq import DrqConfig, export_drq, train_drq
    from alula_exporters.flops import FlopsConfig, export_flops, train_flops
    from alula_exporters.records import Recorder

__all__ = [
    "BackboneConfig",
    "Checkpoint",
    "DrqConfig",
    "FlopsConfig",
    "Recorder",
    "TrainingData",
    "export_drq",
    "export_flops",
    "load_training_data",
    "make_training_data",
    "train_backbone",
    "train_drq",
    "train_flops",
    "write_card",
]

_HOMES = {
    "Checkpoint": "alula_exporters.checkpoint",
    **dict.fromkeys(("BackboneConfig", "train_backbone"), "alula_exporters.dense"),
    **dict.fromkeys(("TrainingData", "load_training_data", "make_training_data"), "alula_exporters.data"),
    **dict.fromkeys(("DrqConfig", "export_drq", "train_drq"), "alula_exporters.drq"),
    **dict.fromkeys(("FlopsConfig", "export_flops", "train_flops"), "alula_exporters.flops"),
    "Recorder": "alula_exporters.records",
    "write_card": "alula_exporters.card",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
