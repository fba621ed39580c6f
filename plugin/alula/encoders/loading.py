"""Load an encoder file as the class of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from alula.encoders.contract import read_file
from alula.encoders.drq_encoder import DrqEncoder
from alula.encoders.flops_encoder import FlopsEncoder
from alula.encoders.remote import local_copy
from alula.encoders.session import RUN_SECONDS

ENCODERS: Mapping[str, type[FlopsEncoder] | type[DrqEncoder]] = {cls.kind: cls for cls in (FlopsEncoder, DrqEncoder)}


def load_encoder(path: str | Path, *, threads: int = 0, run_seconds: float = RUN_SECONDS) -> FlopsEncoder | DrqEncoder:
    """Open an encoder file, check its contract and encode a few probes with it.

    Args:
        path: The ``.onnx`` file, or its URL (see `alula.encoders.remote.local_copy`).
        threads: Threads onnxruntime may use for one call; 0 lets it choose.
        run_seconds: Longest time of a batch; a batch that takes longer fails.

    Raises:
        EncoderError: If the file is missing, truncated, not an encoder, or breaks the contract.
    """
    path = local_copy(path)
    model, info, sha256 = read_file(path)
    encoder = ENCODERS[info.kind](path, model, info, threads=threads, run_seconds=run_seconds, sha256=sha256)
    encoder.self_test()
    return encoder
