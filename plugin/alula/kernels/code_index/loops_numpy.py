"""The scan over codes in numpy, with the results of `loops_numba`."""

from __future__ import annotations

import numpy as np

from alula.encoders.metric import better_is_larger
from alula.kernels.adc import adc_inner_products, adc_scores
from alula.kernels.code_index.layout import CODE_BLOCK, U64, CodeRows, best_keys, ordered_keys
from alula.kernels.topk import F32, I64, Mask

SCAN_BLOCKS = 512  # blocks at a time: they fit the caches


def scan(
    rows: CodeRows,
    ranges: I64,
    valid: Mask,
    lut: F32,
    query_norm: float,
    wanted: int,
    *,
    metric: str,
    scale: float,
) -> U64:
    """The best rows of one query by `adc_scores`.

    Args:
        rows: The rows.
        ranges: int64 (r, 2): ranges of slots to visit, the ends excluded.
        valid: bool (positions,): only these rows may be found; empty where all may.
        lut: float32 (t, 256): the query's look-up table for the prefix that is searched.
        query_norm: As for `adc_scores`.
        wanted: Maximum number of rows, 1 or more.
        metric: As for `adc_scores`.
        scale: As for `adc_scores`.

    Returns:
        uint64 (min(wanted, rows that may be found),): `ordered_keys`, the best first.
    """
    larger = better_is_larger(metric)
    kept = np.empty(0, np.uint64)
    for first, last in ranges:
        for start in range(first // CODE_BLOCK, -(-last // CODE_BLOCK), SCAN_BLOCKS):
            blocks = slice(start, min(start + SCAN_BLOCKS, -(-last // CODE_BLOCK)))
            slots = np.arange(max(first, blocks.start * CODE_BLOCK), min(last, blocks.stop * CODE_BLOCK))
            codes = rows.codes[blocks, : len(lut)].transpose(1, 0, 2).reshape(len(lut), -1).T
            with np.errstate(over="ignore", invalid="ignore"):  # what is then not finite comes last
                products = adc_inner_products(codes, lut)
                norms = rows.norms[blocks].ravel().view(np.float16).astype(np.float32) if metric != "IP" else products
                scores = adc_scores(products, norms, query_norm, metric, scale)[slots - blocks.start * CODE_BLOCK]
            positions = rows.positions[slots] if len(rows.positions) else slots
            if len(valid):
                scores, positions = scores[valid[positions]], positions[valid[positions]]
            kept = best_keys(np.concatenate([kept, ordered_keys(scores, positions, larger=larger)]), wanted)
    return kept
