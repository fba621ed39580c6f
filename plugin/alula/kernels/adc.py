"""Asymmetric distance computation (ADC) over codes and signs, and packing codes.

The estimate of <q, x> is the sum of one look-up table entry per level (Jegou et al., Product Quantization for Nearest
Neighbor Search, TPAMI 2011; for residual levels Song et al., IJCAI 2019).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


def adc_inner_products(codes: U8, lut: F32) -> F32:
    """Inner products of one query with the reconstructions that codes stand for.

    Args:
        codes: uint8 (n, t): the first t levels of each code.
        lut: float32 (M, 256), M >= t: the query's look-up table.

    Returns:
        float32 (n,).
    """
    total = np.zeros(len(codes), np.float32)
    for level in range(codes.shape[1]):
        total += lut[level][codes[:, level]]
    return total


def sign_tables(weights: F32) -> F32:
    """Look-up tables for packed sign bits: a byte of signs is a codeword number.

    Args:
        weights: float32 (n, S): the weight of each sign, which is -1 or 1.

    Returns:
        float32 (n, S / 8, 256): the weighted sum of the eight signs of each byte.
    """
    signs = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) * 2 - 1
    tables: F32 = weights.reshape(len(weights), weights.shape[1] // 8, 8) @ signs.T
    return tables


def adc_scores(inner_products: F32, norms: F32, query_norm: float, metric: str, scale: float = 1.0) -> F32:
    """Estimated scores in the user's metric.

    Args:
        inner_products: float32 (n,): `adc_inner_products` in units of the encoder's scale.
        norms: float32 (n,): norms of the same prefixes' reconstructions, same units.
        query_norm: Norm of the query, same units.
        metric: ``COSINE``, ``IP`` or ``L2``.
        scale: The encoder's scale: what one unit is in the user's vectors.

    Returns:
        float32 (n,): cosine, inner product, or squared distance.
    """
    scores: F32
    if metric == "IP":
        scores = inner_products * np.float32(scale * scale)
    elif metric == "L2":
        distances = query_norm * query_norm - 2.0 * inner_products + norms * norms
        scores = (distances * (scale * scale)).astype(np.float32)
    else:
        scores = np.divide(inner_products, norms, out=np.zeros_like(inner_products), where=norms > 0)
    return scores


def pack_bytes(codes: U8) -> list[I64]:
    """Pack bytes (n, M) into ceil(M / 8) INT64 columns, the first level lowest."""
    n, levels = codes.shape
    padded = np.zeros((n, -(-levels // 8) * 8), np.uint8)
    padded[:, :levels] = codes
    return list(np.ascontiguousarray(padded).view("<i8").T)


def unpack_bytes(columns: list[I64], levels: int) -> U8:
    """Invert `pack_bytes`: uint8 (n, levels) of the first ceil(levels / 8) columns."""
    return np.stack(columns, axis=1).astype("<i8").view(np.uint8)[:, :levels]


def pack_norms(norms: F32) -> list[I64]:
    """Pack norms (n, M) as float16 into ceil(M / 4) INT64 columns.

    Their rounding error of 0.05 % is far below the quantisation error.
    """
    n, levels = norms.shape
    padded = np.zeros((n, -(-levels // 4) * 4), "<f2")
    padded[:, :levels] = np.minimum(norms, np.finfo(np.float16).max)
    return list(np.ascontiguousarray(padded).view("<i8").T)


def unpack_norms(column: I64, level: int) -> F32:
    """Unpack the norms of one level, float32 (n,).

    Args:
        column: Its column, ``pack_norms(...)[level // 4]``.
        level: The level, counted from 0.
    """
    return np.ascontiguousarray(column.astype("<i8")[:, None]).view("<f2")[:, level % 4].astype(np.float32)
