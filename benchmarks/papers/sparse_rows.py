"""Sparse rows of a trained encoder, their cost, and Alula's index over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from alula.kernels import InvertedIndex
from alula.kernels.vectors import Vectors
from alula_exporters.flops import SparseEncoder
from alula_exporters.flops.cost import expected_flops
from benchmarks.papers.datasets import F32, I64, spread

_CHUNK = 4_096


@dataclass(frozen=True)
class Cost:
    """Search cost of sparse rows, counted on them.

    Args:
        flops: Multiplications for a pair of rows, F.
        nnz: Mean non-zeros of a row.
        r_sub: F over what it would be if all dimensions were used alike.
    """

    flops: float
    nnz: float
    r_sub: float


@torch.no_grad()
def encode(model: SparseEncoder, vectors: F32) -> sp.csr_array:
    """The sparse rows of vectors, float32 CSR (n, D)."""
    parts = [model(chunk) for chunk in torch.split(torch.from_numpy(vectors), _CHUNK)]
    weights, dims = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    kept = weights > 0
    starts = np.concatenate([[0], np.cumsum(kept.sum(1))])
    rows = sp.csr_array((weights[kept], dims[kept], starts), shape=(len(weights), model.dim))
    rows.sort_indices()
    return rows


def count_cost(rows: sp.csr_array) -> Cost:
    """The search cost of rows."""
    n, dim = rows.shape
    flops = expected_flops(torch.from_numpy(np.bincount(rows.indices, minlength=dim)), n)
    nnz = rows.nnz / n
    return Cost(flops, nnz, flops * dim / nnz**2)


def cost_cells(costs: Sequence[Cost], digits: int = 2) -> dict[str, str]:
    """A table's cells for the costs of several seeds; none where there are none."""
    if not costs:
        return {}
    return {
        "non-zeros": spread([cost.nnz for cost in costs], 1),
        "FLOPs": spread([cost.flops for cost in costs], digits),
        "R_sub": spread([cost.r_sub for cost in costs], 2),
    }


def build_index(rows: sp.csr_array, exact: Vectors | None = None) -> InvertedIndex:
    """Alula's index of rows, with the vectors that re-ranking reads."""
    index = InvertedIndex(rows.shape[1], "COSINE")
    index.add(rows)
    index.vectors = exact
    return index


def split_queries(rows: sp.csr_array) -> list[list[tuple[I64, F32]]]:
    """Each row as the index takes a single query."""
    ends = rows.indptr
    dims, weights = rows.indices.astype(np.int64), rows.data.astype(np.float32)
    return [[(dims[ends[i] : ends[i + 1]], weights[ends[i] : ends[i + 1]])] for i in range(rows.shape[0])]


def posting_bytes(index: InvertedIndex, *, reranked: bool = True) -> float:
    """Bytes of a row in the lists that a search with or without re-ranking reads."""
    return (index.nbytes["postings"] + index.nbytes["levels" if reranked else "weights"]) / len(index)
