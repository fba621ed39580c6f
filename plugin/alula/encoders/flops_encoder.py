"""Run a sparse encoder: vectors to sparse rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from alula.encoders.contract import SPARSE_OUTPUTS, VECTORS
from alula.encoders.encoder import F32, Encoder, NativeQuery, slices


class FlopsEncoder(Encoder):
    """A sparse encoder: vectors to non-negative sparse rows; queries likewise."""

    kind: ClassVar = "flops"
    native_type: ClassVar = "SPARSE_FLOAT_VECTOR"
    output_unit: ClassVar = "sparse dims"

    @property
    def output_dim(self) -> int:
        """The number of sparse dimensions."""
        return self.info.dim

    @property
    def output_size(self) -> str:
        """See `Encoder.output_size`."""
        return f"{self.info.max_nnz} non-zeros"

    @property
    def output_details(self) -> Mapping[str, str]:
        """See `Encoder.output_details`."""
        return {"sparse dimensions": f"{self.info.dim:,}", "most non-zeros": str(self.info.max_nnz)}

    def encode_rows(self, vectors: npt.ArrayLike, *, checked: bool = False) -> sp.csr_array:
        """Encode vectors to sparse rows, slice by slice.

        Args:
            vectors: Array-like (n, d).
            checked: True for vectors as `check_vectors` returns them, which are not checked again.

        Returns:
            float32 CSR (n, dim) with sorted indices and no explicit zeros.

        Raises:
            DataError: If the vectors cannot be used.
            EncoderError: If the encoder fails or breaks the contract.
        """
        parts = [self._sparse_rows(part) for part in slices(self.checked_vectors(vectors, checked))]
        if len(parts) == 1:
            return parts[0]
        return sp.vstack(parts, format="csr") if parts else sp.csr_array((0, self.info.dim), dtype=np.float32)

    def encode_queries(self, vectors: npt.ArrayLike, *, checked: bool = False) -> sp.csr_array:
        """Encode queries; the same as `encode_rows`."""
        return self.encode_rows(vectors, checked=checked)

    def native_rows(self, vectors: F32) -> sp.csr_array:
        """See `Encoder.native_rows`."""
        return self.encode_rows(vectors, checked=True)

    def native_queries(self, vectors: F32) -> list[NativeQuery]:
        """See `Encoder.native_queries`."""
        return [*sparse_queries(self.encode_queries(vectors, checked=True))]

    def _sparse_rows(self, vectors: F32) -> sp.csr_array:
        rows, dims, weights = self._run(SPARSE_OUTPUTS, {VECTORS: vectors})
        if not (rows.ndim == dims.ndim == weights.ndim == 1 and len(rows) == len(dims) == len(weights)):
            raise self._broken("rows, dims and weights are not three lists of one length")
        if (rows.dtype.kind, dims.dtype.kind, weights.dtype.kind) != ("i", "i", "f"):
            raise self._broken(
                f"rows, dims and weights are {rows.dtype}, {dims.dtype} and {weights.dtype}, and int64, int64 and "
                "float32 were expected"
            )
        n, outputs = len(vectors), self.info.dim
        if len(rows) and (rows.min() < 0 or rows.max() >= n or dims.min() < 0 or dims.max() >= outputs):
            raise self._broken("a non-zero lies outside the sparse matrix")
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise self._broken("a weight is negative or not finite, which Milvus does not take")
        matrix = sp.csr_array((weights.astype(np.float32), (rows, dims)), shape=(n, outputs), dtype=np.float32)
        matrix.eliminate_zeros()
        matrix.sort_indices()
        counts = np.diff(matrix.indptr)
        if (counts == 0).any():
            raise self._broken("a row is empty, and Milvus would never find it")
        if (counts > self.info.max_nnz).any():
            raise self._broken(f"a row has more than {self.info.max_nnz} non-zeros")
        return matrix


def sparse_queries(rows: sp.csr_array, terms: int | None = None) -> list[dict[int, float]]:
    """The rows of a CSR matrix as Milvus's sparse queries.

    Args:
        rows: float32 CSR (n, dim).
        terms: The number of heaviest terms to keep of each row; all by default.
    """
    queries = []
    for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        dims, weights = rows.indices[start:end], rows.data[start:end]
        if terms is not None and terms < len(dims):
            kept = np.sort(np.argsort(-weights, kind="stable")[:terms])
            dims, weights = dims[kept], weights[kept]
        queries.append(dict(zip(dims.tolist(), weights.tolist(), strict=True)))
    return queries
