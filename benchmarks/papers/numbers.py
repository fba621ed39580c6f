"""The numbers of a DRQ model that its codes need, counted in its encoder file."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import onnx

from alula.encoders.graph import cut
from alula_exporters import export_drq
from alula_exporters.drq import Quantizer
from alula_exporters.training import Trained


def numbers_in_file(trained: Trained[Quantizer]) -> int:
    """Count the numbers that codes, norms and look-up tables need, without a backbone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        export_drq(trained.head(), path)
        part = cut(onnx.load(path), ["vectors"], ["codes", "norms", "lut"])
    return sum(math.prod(tensor.dims) for tensor in part.graph.initializer)
