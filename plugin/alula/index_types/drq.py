"""DRQ: codes with usable prefixes, searched by Hamming or asymmetric distance.

Song et al., Deep Recurrent Quantization for Generating Sequential Binary Codes, IJCAI 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from alula.encoders import DrqEncoder, DrqQueries, DrqRows, Encoder, Metric
from alula.errors import UnsupportedError, UsageError
from alula.index_types.base import F32, Candidates, Column, IndexType, Lowering, Option, SearchPlan, Sweep, VectorField
from alula.index_types.capabilities import Capabilities, binary_probe, sparse_probe
from alula.index_types.flops_sparse import POSTING_BYTES
from alula.index_types.local import EncodedRows, LocalIndex, Mask
from alula.index_types.native import FieldSpec, NativeIndex
from alula.kernels import (
    CodeIndex,
    TopK,
    adc_inner_products,
    adc_scores,
    pack_bytes,
    pack_norms,
    unpack_bytes,
    unpack_norms,
)

TINY = 1e-12  # the smallest norm that a query is divided by
BINARY_INDEXES = ("BIN_FLAT", "BIN_IVF_FLAT")


def _lengths(encoder: Encoder, _: Mapping[str, Any]) -> list[int]:
    """The five longest code lengths of every layout: the longest, and powers of two."""
    longest = encoder.info.max_bits
    return sorted({8 << n for n in range(16) if 8 << n < longest} | {longest}, reverse=True)[:5]


def _clusters(_: Encoder, settings: Mapping[str, Any]) -> list[int]:
    return [16, 64, 256] if settings.get("binary_index") == "BIN_IVF_FLAT" else []


class Drq(IndexType):
    """The index type DRQ, with its layouts ``hamming`` and ``adc``."""

    name = "DRQ"
    encoder_kind = "drq"
    summary = "Short binary codes of any length from one encoder; the length is chosen when searching."
    create_options = (
        Option(
            "layout",
            str,
            "hamming: sign bits in a binary index, ranked by code distance (least memory). "
            "adc: Milvus's sparse index computes the code distance itself. Default: hamming where the server has "
            "binary vectors.",
            choices=("hamming", "adc"),
        ),
        Option(
            "binary_index",
            str,
            "Layout hamming: the native index of the sign bits. BIN_IVF_FLAT visits a part of the rows; for 10 million "
            "rows and more.",
            "BIN_FLAT",
            choices=BINARY_INDEXES,
        ),
    )
    search_options = (
        Option(
            "bits",
            int,
            "Code length used for ranking, a multiple of 8; the longest by default.",
            minimum=8,
            sweep=Sweep(_lengths, "estimates"),
        ),
        Option("candidates", int, "Candidates to take from the native index and rank.", 1000),
        Option(
            "nprobe", int, "Layout hamming with BIN_IVF_FLAT: clusters to visit.", 16, sweep=Sweep(_clusters, "all")
        ),
    )
    local_options = (
        *search_options,
        Option("probes", int, "First codewords, of 256, to visit the rows of; all by default.", minimum=1),
    )

    probes = (
        sparse_probe("DRQ's layout adc works", "no layout adc"),
        binary_probe("BIN_FLAT", "DRQ's layout hamming works", "no layout hamming"),
        binary_probe(
            "BIN_IVF_FLAT", "layout hamming can visit a part of the rows only", "layout hamming visits all rows"
        ),
    )

    def choose(self, capabilities: Capabilities, options: Mapping[str, Any]) -> dict[str, str]:
        """See `IndexType.choose`."""
        layout, binary_index = options["layout"], options["binary_index"]
        if layout is None:
            layout = "hamming" if capabilities.binary_indexes else "adc"
        if layout == "adc":
            if not capabilities.sparse_index:
                raise UnsupportedError(
                    f"{capabilities.server} cannot index sparse vectors "
                    f"({capabilities.reasons.get('sparse_index', 'no reason given')}), which DRQ's layout adc needs; "
                    + ('use layout="hamming".' if capabilities.binary_indexes else "use Milvus 2.4 or later.")
                )
            return {"layout": "adc"}
        if binary_index not in capabilities.binary_indexes:
            have = ", ".join(sorted(capabilities.binary_indexes))
            todo = f'use binary_index="{have}"' if have else 'use layout="adc"' if capabilities.sparse_index else ""
            raise UnsupportedError(
                f"{capabilities.server} has no {binary_index} "
                f"({capabilities.reasons.get(binary_index, 'no reason given')}), which DRQ's layout hamming "
                f"needs; {todo or 'use Milvus 2.3 or later, or Milvus Lite 2.5'}."
            )
        return {"layout": "hamming", "binary_index": binary_index}

    def lowering(self, field: VectorField, encoder: Encoder, settings: Mapping[str, str]) -> Lowering:
        """See `IndexType.lowering`."""
        return (_AdcLowering if settings["layout"] == "adc" else _HammingLowering)(field, encoder, settings)

    def local(self, encoder: Encoder, metric: Metric, *, keep_vectors: bool) -> LocalIndex:
        """See `IndexType.local`."""
        info = encoder.info
        index = CodeIndex(info.levels, metric, info.scale, info.input_dim if keep_vectors else None)
        return _LocalDrq(cast(DrqEncoder, encoder), index)

    def open_local(self, folder: Path, encoder: Encoder) -> LocalIndex:
        """See `IndexType.open_local`."""
        return _LocalDrq(cast(DrqEncoder, encoder), CodeIndex.load(folder))


def prefix_levels(encoder: DrqEncoder, bits: int | None) -> int:
    """The number of levels of a code of `bits` bits; all by default.

    Raises:
        UsageError: If the encoder's codes have no such prefix.
    """
    longest = encoder.info.max_bits
    if bits is None:
        return encoder.info.levels
    if bits % 8 or bits > longest:
        raise UsageError(f"bits is {bits}; this encoder's codes have a multiple of 8 bits up to {longest}.")
    return bits // 8


class _DrqLowering(Lowering):
    """The common part of both layouts: the encoder and the prefix."""

    @property
    def drq(self) -> DrqEncoder:
        return cast(DrqEncoder, self.encoder)

    def prefix(self, bits: int | None) -> int:
        """The number of levels of a code of `bits` bits."""
        return prefix_levels(self.drq, bits)


class _HammingLowering(_DrqLowering):
    """Sign bits in a BINARY_VECTOR; codes and prefix norms in INT64 columns beside it.

    A column contains eight codes or four norms. INT64 columns are exact, are the cheapest scalar to store and to send,
    and a search reads only those of its prefix.
    """

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        info = self.drq.info
        signs = FieldSpec(self.index.field, "BINARY_VECTOR", info.sign_bits // 8, {"dim": info.sign_bits})
        columns = [self._code(i) for i in range(-(-info.levels // 8))] + (
            [self._norm(i) for i in range(-(-info.levels // 4))] if self.field.metric != "IP" else []
        )
        return (signs, *(FieldSpec(name, "INT64", 8) for name in columns))

    @property
    def index(self) -> NativeIndex:
        index_type = self.settings["binary_index"]
        params = {"nlist": 1024} if index_type == "BIN_IVF_FLAT" else {}
        return NativeIndex(self.field.companion("drq_sign"), index_type, "HAMMING", params)

    def _code(self, i: int) -> str:
        return self.field.companion(f"drq_code_{i}")

    def _norm(self, i: int) -> str:
        return self.field.companion(f"drq_norm_{i}")

    def encode_rows(self, vectors: F32) -> dict[str, Column]:
        rows = self.drq.encode_rows(vectors, checked=True)
        columns: dict[str, Column] = {self.index.field: rows.signs}
        columns |= {self._code(i): column for i, column in enumerate(pack_bytes(rows.codes))}
        if self.field.metric != "IP":
            columns |= {self._norm(i): column for i, column in enumerate(pack_norms(rows.norms))}
        return columns

    def decode_rows(self, columns: Mapping[str, Column]) -> EncodedRows:
        levels = self.drq.info.levels
        codes = unpack_bytes([columns[self._code(i)] for i in range(-(-levels // 8))], levels)
        norms = np.ones(codes.shape, np.float32)
        if self.field.metric != "IP":
            for level in range(levels):
                norms[:, level] = unpack_norms(columns[self._norm(level // 4)], level)
        return DrqRows(codes, norms, cast("npt.NDArray[np.uint8]", columns[self.index.field]))

    def plan_search(self, queries: F32, options: Mapping[str, Any], limit: int) -> SearchPlan:
        levels = self.prefix(options["bits"])
        encoded = self.drq.encode_queries(queries, checked=True)
        columns = [self._code(i) for i in range(-(-levels // 8))]
        if self.field.metric != "IP":
            columns.append(self._norm((levels - 1) // 4))
        ivf = self.settings["binary_index"] == "BIN_IVF_FLAT"
        return SearchPlan(
            self.index.field,
            "HAMMING",
            [signs.tobytes() for signs in encoded.signs],
            max(options["candidates"], limit),
            self.field.metric,
            {"nprobe": options["nprobe"]} if ivf else {},
            tuple(columns),
            (encoded, levels),
        )

    def estimate(self, plan: SearchPlan, query: int, candidates: Candidates) -> F32:
        encoded, levels = cast("tuple[DrqQueries, int]", plan.state)
        codes = unpack_bytes([candidates.columns[self._code(i)] for i in range(-(-levels // 8))], levels)
        products = adc_inner_products(codes, encoded.lut[query])
        norms = products
        if self.field.metric != "IP":
            norms = unpack_norms(candidates.columns[self._norm((levels - 1) // 4)], levels - 1)
        return adc_scores(products, norms, float(encoded.norms[query]), self.field.metric, self.drq.info.scale)


class _AdcLowering(_DrqLowering):
    """One-hot codes in a SPARSE_FLOAT_VECTOR; Milvus computes the asymmetric distance.

    A row is 1 at ``256 t + b_t`` for each level t. The query contains each level's look-up table. Both must be
    non-negative, so each level's table is shifted to start at 0, which moves all rows' scores alike.

    COSINE and L2 rank by ``2 <q, x_t> - |x_t|^2`` (for COSINE on unit vectors). The norm of each prefix that a
    search can ask for has its own dimension, as ``bound - |x_t|^2``, and the query selects one.
    """

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths, in levels, that a search can ask for.

        With norms these are the powers of two and the longest, because each needs a stored norm.
        """
        levels = self.drq.info.levels
        if self.field.metric == "IP":
            return tuple(range(1, levels + 1))
        return tuple(sorted({t for t in (1, 2, 4, 8, 16, 32, 64, 128) if t < levels} | {levels}))

    @property
    def norm_bound(self) -> float:
        """More than any squared norm in practice.

        Reconstructions of unit vectors are shorter than 2.

        Without normalisation it is eight times the training rows' length; longer rows are clipped to it.
        """
        return 4.0 if self.drq.info.normalized else 64.0

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        nonzeros = self.drq.info.levels + (len(self.lengths) if self.field.metric != "IP" else 0)
        return (FieldSpec(self.index.field, "SPARSE_FLOAT_VECTOR", POSTING_BYTES * nonzeros),)

    @property
    def index(self) -> NativeIndex:
        params = {"inverted_index_algo": "TAAT_NAIVE"}
        return NativeIndex(self.field.companion("drq_onehot"), "SPARSE_INVERTED_INDEX", "IP", params)

    def prefix(self, bits: int | None) -> int:
        """See `_DrqLowering.prefix`; only lengths with stored norms are possible."""
        levels = super().prefix(bits)
        if levels not in self.lengths:
            stored = ", ".join(str(8 * t) for t in self.lengths)
            raise UsageError(
                f"bits is {bits}; layout adc with {self.field.metric} has the lengths {stored}. "
                'Choose one of them, or create the collection with layout="hamming".'
            )
        return levels

    def encode_rows(self, vectors: F32) -> dict[str, Column]:
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
        return DrqRows(codes, norms, np.empty((n, 0), np.uint8))

    def plan_search(self, queries: F32, options: Mapping[str, Any], limit: int) -> SearchPlan:
        levels = self.prefix(options["bits"])
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
                query[256 * self.drq.info.levels + levels - 1] = 1.0
            native.append(query)
        shifts = factor * lowest[:, :, 0].sum(axis=1)
        candidates = max(options["candidates"], limit)
        state = (shifts, encoded.norms)
        return SearchPlan(self.index.field, "IP", native, candidates, self.field.metric, state=state)

    def estimate(self, plan: SearchPlan, query: int, candidates: Candidates) -> F32:
        shifts, query_norms = plan.state
        native = candidates.scores + shifts[query]
        scale = np.float32(self.drq.info.scale)
        if self.field.metric == "IP":
            return cast(F32, native * scale * scale)
        squared = np.float32(query_norms[query] ** 2 + self.norm_bound) - native
        return cast(F32, 1.0 - squared / 2.0 if self.field.metric == "COSINE" else squared * scale * scale)


class _LocalDrq(LocalIndex):
    def __init__(self, encoder: DrqEncoder, index: CodeIndex) -> None:
        super().__init__(index)
        self._encoder, self._index = encoder, index

    def add(self, rows: EncodedRows, vectors: F32 | None = None) -> None:
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
        levels = prefix_levels(self._encoder, options["bits"])
        if levels not in self._index.lengths:
            stored = ", ".join(str(8 * t) for t in self._index.lengths)
            raise UsageError(f"bits is {8 * levels}; the collection has the lengths {stored}. Choose one of them.")
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
