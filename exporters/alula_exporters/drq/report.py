"""Report on a quantiser: what is printed after training, and its recall."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from alula.encoders import DrqEncoder, EncoderInfo
from alula_exporters.quality import share_found

_SHOWN_LEVELS = (4, 8, 16, 32, 64)

int8_head = False  # a code is decided by exact sums over codewords


def summary(info: EncoderInfo) -> list[tuple[str, str]]:
    """Names and values to print after training: the codes, and the variance kept."""
    distortion, variance = info.training["distortion"], info.training["variance"]
    shown = [level for level in _SHOWN_LEVELS if level < info.levels] + [info.levels]
    kept = ", ".join(f"{1 - distortion[level - 1] / variance:.1%} at {8 * level} bits" for level in shown)
    return [
        ("variant", f"mode {info.training['recipe']['mode']}, {info.training['parameters']:,} trained parameters"),
        ("codes", f"{info.max_bits} bits in {info.levels} levels, {info.sign_bits} sign bits"),
        ("variance kept", kept),
    ]


def recall(
    encoder: DrqEncoder, queries: npt.NDArray[np.float32], rows: npt.NDArray[np.float32], truth: torch.Tensor
) -> dict[str, float]:
    """Recall of the exact neighbours among the best 10 rows by full code.

    Args:
        encoder: The encoder.
        queries: float32 (m, d).
        rows: float32 (n, d).
        truth: int64 (m, 10): positions of the exact neighbours in ``rows``.
    """
    tables, codes = encoder.encode_queries(queries).lut, encoder.encode_rows(rows)
    scores = np.zeros((len(queries), len(rows)), np.float32)
    for level in range(encoder.info.levels):
        scores += tables[:, level][:, codes.codes[:, level]]
    if encoder.info.metric != "IP":  # minus half the squared distance to the reconstruction, up to the query's norm
        scores -= 0.5 * codes.norms[:, -1] ** 2
    return {f"recall@10 by {encoder.info.max_bits}-bit codes": share_found(truth, torch.from_numpy(scores), 10)}
