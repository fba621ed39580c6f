"""Report on a sparse encoder: what is printed after training, and its recall."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from alula.encoders import EncoderInfo, FlopsEncoder
from alula_exporters.figures import compared
from alula_exporters.quality import share_found

_CANDIDATES = (100, 500)
_NOTABLE = 0.1  # share of rows cut that deserves a note

int8_head = True


def summary(info: EncoderInfo) -> list[tuple[str, str]]:
    """Names and values to print after training: the rows, and their search cost."""
    training = info.training
    recipe = training["recipe"]
    costs = {"flops": training["flops_achieved"], "nnz": training["nnz_mean"]}
    shown = {unit: f"{cost:.3g}" for unit, cost in costs.items()}
    for unit, cost in costs.items():
        if f"{unit}_requested" in training:
            shown[unit] += f" ({compared(cost, training[f'{unit}_requested'])})"
    cut = training.get("rows_at_most_nnz", 0)
    note = f"{cut:.0%} of rows are cut at {info.max_nnz} non-zeros; allow more non-zeros per row"
    return [
        ("variant", f"activation {recipe['activation']}, regulariser {recipe['regulariser']}"),
        ("sparse rows", f"{shown['nnz']} non-zeros on average, {info.max_nnz} at most, in {info.dim:,} dimensions"),
        ("FLOPs", shown["flops"]),
        *([("note", note)] if cut > _NOTABLE else []),
        ("evenness", f"{training['r_sub']:.2f} (1 is perfect); {training['dead_dims']} dimensions are never used"),
    ]


def recall(
    encoder: FlopsEncoder, queries: npt.NDArray[np.float32], rows: npt.NDArray[np.float32], truth: torch.Tensor
) -> dict[str, float]:
    """Recall of the exact neighbours among the best 100 and 500 sparse rows.

    Args:
        encoder: The encoder.
        queries: float32 (m, d).
        rows: float32 (n, d).
        truth: int64 (m, 10): positions of the exact neighbours in ``rows``.
    """
    scores = torch.from_numpy((encoder.encode_queries(queries) @ encoder.encode_rows(rows).T).toarray())
    return {f"recall@10 in top {count}": share_found(truth, scores, count) for count in _CANDIDATES}
