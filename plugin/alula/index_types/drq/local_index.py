"""DRQ codes and sign bits in this process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

import numpy as np

from alula.encoders import DrqEncoder, DrqRows
from alula.errors import UsageError
from alula.index_types.base import F32
from alula.index_types.drq.lowering import prefix_levels
from alula.index_types.local import EncodedRows, LocalIndex, Mask
from alula.kernels import CodeIndex, TopK, sign_tables

TINY = 1e-12  # the smallest norm that a query is divided by


class _InCodeIndex(LocalIndex):
    """The common part: a `CodeIndex`, and the encoder of its queries."""

    def __init__(self, encoder: DrqEncoder, index: CodeIndex) -> None:
        super().__init__(index)
        self._encoder, self._index = encoder, index


class LocalDrq(_InCodeIndex):
    """DRQ codes in a `CodeIndex`."""

    def add(self, rows: EncodedRows, vectors: F32 | None = None) -> None:
        """See `LocalIndex.add`."""
        encoded = cast(DrqRows, rows)
        self._index.add(encoded.codes, encoded.norms, vectors)

    def search(
        self,
        queries: F32,
        limit: int,
        options: Mapping[str, Any],
        *,
        rerank: int | None = None,
        valid: Mask | None = None,
    ) -> TopK:
        """See `LocalIndex.search`."""
        levels = prefix_levels(self._encoder, options["bits"], self._index.lengths)
        lut, norms = self._tables(queries, levels)
        return self._index.search(
            lut,
            norms,
            limit,
            levels=levels,
            vectors=queries,
            candidates=options["candidates"],
            rerank=rerank,
            valid=valid,
            probes=options["probes"],
        )

    def _tables(self, queries: F32, levels: int) -> tuple[F32, F32]:
        """Look-up tables (n, levels, 256) and norms (n,), as `DrqEncoder.encode_queries`.

        They are inner products with codewords, which cost less than a call of onnxruntime.
        """
        info = self._encoder.info
        norms = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
        units = np.maximum(norms, TINY) if info.normalized else np.full_like(norms, info.scale)
        words = self._words[:, : levels * 256]
        lut = np.empty((len(queries), levels, 256), np.float32)
        for table, query in zip(lut, (queries / units).astype(np.float32), strict=True):
            table[:] = (query @ words).reshape(levels, 256)  # not batched: results must not depend on it
        norms = np.ones(len(queries)) if info.normalized else norms[:, 0] / info.scale
        return lut, norms.astype(np.float32)

    @cached_property
    def _words(self) -> F32:
        """The scaled codewords, float32 (d, 256 M), as look-up tables of unit vectors."""
        info = self._encoder.info
        units = np.eye(info.input_dim, dtype=np.float32) * np.float32(1.0 if info.normalized else info.scale)
        return self._encoder.encode_queries(units, checked=True).lut.reshape(info.input_dim, -1)


class LocalSigns(_InCodeIndex):
    """Sign bits in a `CodeIndex`: a byte of signs is a codeword number."""

    def add(self, rows: EncodedRows, vectors: F32 | None = None) -> None:
        """See `LocalIndex.add`."""
        encoded = cast(DrqRows, rows)
        norms = np.full(encoded.signs.shape, np.nan, np.float32)
        norms[:, -1] = encoded.sign_lengths
        self._index.add(encoded.signs, norms, vectors)

    def search(
        self,
        queries: F32,
        limit: int,
        options: Mapping[str, Any],
        *,
        rerank: int | None = None,
        valid: Mask | None = None,
    ) -> TopK:
        """See `LocalIndex.search`."""
        for name in ("bits", "probes"):
            if options[name] is not None:
                raise UsageError(
                    f"{name} is {options[name]}, and this collection stores no codes; leave {name}=... out."
                )
        if not len(queries):
            return TopK.empty(0, limit)
        # one by one: results must not depend on the other queries
        encoded = [self._encoder.encode_queries(query[None], checked=True, tables=False) for query in queries]
        tables = np.concatenate([sign_tables(one.sign_weights) for one in encoded])
        bias = np.concatenate([one.sign_bias for one in encoded])
        found = self._index.search(
            tables,
            np.sqrt(np.maximum(bias, 0)),
            limit,
            levels=self._index.levels,
            vectors=queries,
            candidates=options["candidates"],
            rerank=rerank,
            valid=valid,
        )
        if self._index.metric == "COSINE" and (rerank == 0 or not self.keeps_vectors):
            return TopK(found.positions, found.scores + bias[:, None])
        return found
