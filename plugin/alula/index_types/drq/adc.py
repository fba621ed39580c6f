"""The DRQ layout adc: one-hot codes in Milvus's sparse inverted index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import scipy.sparse as sp

from alula.encoders import DrqRows
from alula.index_types.base import F32, Candidates, Column, SearchPlan
from alula.index_types.drq.lowering import OVERSAMPLE, DrqLowering, norm_lengths, prefix_levels
from alula.index_types.local import EncodedRows
from alula.index_types.native import POSTING_BYTES, FieldSpec, NativeIndex
from alula.index_types.options import candidate_counts

# The product of a query with a near row's reconstruction, both of unit vectors. On MiniLM, mpnet and GloVe 0.5 to 0.7
# are best for 64 bits and more: recall@10 within .005 of the exact cosine, and up to .053 over L2.
_NEAR_PRODUCT = 0.6


class AdcLowering(DrqLowering):
    """One-hot codes in a SPARSE_FLOAT_VECTOR; Milvus computes the asymmetric distance.

    A row is 1 at ``256 t + b_t`` for each level t. The query contains each level's look-up table. Both must be
    non-negative, so each level's table is shifted to start at 0, which moves all rows' scores alike.

    L2 ranks by ``2 <q, x_t> - |x_t|^2``. COSINE, on unit vectors, ranks by ``<q, x_t> / |x_t|``, which a sum of
    postings can express to first order: ``<q, x_t> + p (1 - |x_t|^2) / 2`` with the product p that near rows have. The
    norm of each prefix that a search can ask for has its own dimension, as ``bound - |x_t|^2``, and the query selects
    one.
    """

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths, in levels, that a search can ask for.

        With norms these are the powers of two and the longest, because each needs a stored norm.
        """
        levels = self.drq.info.levels
        if self.field.metric == "IP":
            return tuple(range(1, levels + 1))
        return norm_lengths(levels)

    @property
    def norm_bound(self) -> float:
        """More than any squared norm in practice.

        Reconstructions of unit vectors are shorter than 2.

        Without normalisation it is eight times the training rows' length; longer rows are clipped to it.
        """
        return 4.0 if self.drq.info.normalized else 64.0

    @property
    def norm_weight(self) -> float:
        """The weight of the squared norm in the ranking, beside 2 <q, x_t>."""
        return {"COSINE": _NEAR_PRODUCT, "L2": 1.0, "IP": 0.0}[self.field.metric]

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """See `Lowering.fields`."""
        nonzeros = self.drq.info.levels + (len(self.lengths) if self.field.metric != "IP" else 0)
        return (FieldSpec(self.index.field, "SPARSE_FLOAT_VECTOR", POSTING_BYTES * nonzeros),)

    @property
    def index(self) -> NativeIndex:
        """See `Lowering.index`."""
        # Milvus 3.0 would keep the norms in half precision, which reorders near rows; others ignore quant_type
        params = {"inverted_index_algo": "TAAT_NAIVE", "quant_type": "fp32"}
        return NativeIndex(self.field.companion("drq_onehot"), "SPARSE_INVERTED_INDEX", "IP", params)

    def encode_rows(self, vectors: F32) -> dict[str, Column]:
        """See `Lowering.encode_rows`."""
        return {self.index.field: self.one_hot(self.drq.encode_rows(vectors, checked=True))}

    def one_hot(self, rows: DrqRows) -> sp.csr_array:
        """The sparse rows (n, 256 M + M) of codes."""
        n, levels = rows.codes.shape
        dims = rows.codes.astype(np.int32) + 256 * np.arange(levels, dtype=np.int32)
        weights = np.ones((n, levels), np.float32)
        if self.field.metric != "IP":
            at = np.array(self.lengths, np.int32) - 1
            room = self.norm_bound - np.square(rows.norms[:, at])
            dims = np.hstack([dims, np.broadcast_to(256 * levels + at, (n, len(at)))])
            weights = np.hstack([weights, np.maximum(room, np.float32(1e-6))]).astype(np.float32)
        indptr = np.arange(n + 1) * dims.shape[1]
        return sp.csr_array((weights.ravel(), dims.ravel(), indptr), shape=(n, 257 * levels))

    def decode_rows(self, columns: Mapping[str, Column]) -> EncodedRows:
        """See `Lowering.decode_rows`; missing norms are NaN, and signs are not stored."""
        rows = cast(sp.csr_array, columns[self.index.field])
        n, levels = rows.shape[0], self.drq.info.levels
        width = levels + (len(self.lengths) if self.field.metric != "IP" else 0)
        dims, weights = rows.indices.reshape(n, width), rows.data.reshape(n, width)
        codes = (dims[:, :levels] - 256 * np.arange(levels)).astype(np.uint8)
        norms = np.full((n, levels), 1.0 if self.field.metric == "IP" else np.nan, np.float32)
        if self.field.metric != "IP":
            stored = np.sqrt(np.maximum(np.float32(self.norm_bound) - weights[:, levels:], 0))
            norms[:, np.array(self.lengths) - 1] = stored
        return DrqRows(codes, norms, np.empty((n, 0), np.uint8), np.ones(n, np.float32))

    def plan_search(self, queries: F32, options: Mapping[str, Any], limit: int) -> SearchPlan:
        """See `Lowering.plan_search`."""
        levels = prefix_levels(self.drq, options["bits"], self.lengths)
        encoded = self.drq.encode_queries(queries, checked=True)
        lut = encoded.lut[:, :levels, :]
        factor = np.float32(1.0 if self.field.metric == "IP" else 2.0)
        lowest = lut.min(axis=2, keepdims=True)
        shifted = (factor * (lut - lowest)).reshape(len(lut), 256 * levels)
        if self.field.metric == "IP":
            # Milvus returns only rows that share a term with the query: a tiny weight for each codeword of the first
            # level lets it reach the farthest rows, and keeps a zero query from being empty
            shifted[:, :256] = np.maximum(shifted[:, :256], np.float32(1e-6))
        native = []
        for row in shifted:
            dims = np.flatnonzero(row)
            query = dict(zip(dims.tolist(), row[dims].tolist(), strict=True))
            if self.field.metric != "IP":
                query[256 * self.drq.info.levels + levels - 1] = self.norm_weight
            native.append(query)
        shifts = factor * lowest[:, :, 0].sum(axis=1)
        candidates, rerank = candidate_counts(options, limit, oversample=OVERSAMPLE)
        state = (shifts, encoded.norms)
        return SearchPlan(self.index.field, "IP", native, candidates, self.field.metric, state=state, rerank=rerank)

    def estimate(self, plan: SearchPlan, query: int, candidates: Candidates) -> F32:
        """See `Lowering.estimate`."""
        shifts, query_norms = plan.state
        native = candidates.scores + shifts[query]
        scale = np.float32(self.drq.info.scale)
        if self.field.metric == "IP":
            return cast(F32, native * scale * scale)
        weighed = native - np.float32(self.norm_weight * self.norm_bound)  # 2 <q, x_t> - w |x_t|^2
        if self.field.metric == "COSINE":
            return cast(F32, (weighed + np.float32(self.norm_weight)) / 2)
        return cast(F32, (np.float32(query_norms[query] ** 2) - weighed) * scale * scale)
