"""The DRQ layout hamming: sign bits in a binary index, which rank the rows too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from alula.encoders import DrqQueries, DrqRows, Encoder
from alula.errors import UsageError
from alula.index_types.base import F32, Candidates, Column, SearchPlan, VectorField
from alula.index_types.capabilities import BINARY_INDEXES
from alula.index_types.drq.lowering import OVERSAMPLE, DrqLowering, norm_lengths, prefix_levels
from alula.index_types.local import EncodedRows
from alula.index_types.native import FieldSpec, NativeIndex
from alula.index_types.options import candidate_counts
from alula.kernels import (
    adc_inner_products,
    adc_scores,
    pack_bytes,
    pack_norms,
    sign_tables,
    unpack_bytes,
    unpack_norms,
)

AUTO = "auto"
NORMS = 4  # lengths with stored norms: one INT64 column
# Candidates by Hamming distance for each one that is scored exactly. Of 116,659 MiniLM vectors, 256 bits find .950 of
# the ten nearest among the best 100 by Hamming distance, and .982 among the best 100, by weighted signs, of 300
# (`make bench PARTS=sentences`).
ESTIMATED = 3
ESTIMATED_BY_CODE = 10  # signs that are not learned for it, or see directions only, find less
_SEARCH_PARAMS = {"BIN_IVF_FLAT": "nprobe", "HNSW": "ef"}


class HammingLowering(DrqLowering):
    """Sign bits in a BINARY_VECTOR; for L2 a row's distance from the mean beside it.

    A float query against a candidate's signs ranks better than their Hamming distance (`DrqQueries`). IP needs lengths,
    and encoders of format 1 have no weights: there a code ranks, in INT64 columns of eight codes or four norms, of
    which a search reads those of its prefix. They are exact, and the cheapest scalar to store and to send.

    The setting ``code_bits`` is the length of the stored code. Collections without it, of earlier versions, have the
    whole code with the norms of all its lengths.
    """

    def __init__(self, field: VectorField, encoder: Encoder, settings: Mapping[str, str]) -> None:
        super().__init__(field, encoder, settings)
        info, given = self.drq.info, self.settings.get("code_bits")
        self._signs_rank = info.signs_rank and field.metric != "IP"
        if given == AUTO:
            self.settings["code_bits"] = given = str(info.max_bits if self._code_ranks_better else 0)
        bits = info.max_bits if given is None else int(given)
        if bits % 8 or bits > info.max_bits:
            raise UsageError(
                f"code_bits is {bits}; this encoder's codes have a multiple of 8 bits up to {info.max_bits}."
            )
        if not bits and not self._signs_rank:
            why = "for IP" if info.signs_rank else "for this encoder, which an earlier Alula wrote"
            raise UsageError(f"code_bits is 0, and {why} sign bits alone cannot rank; leave code_bits=... out.")
        self._levels = bits // 8
        self._by_signs = not bits
        self._length_fields: tuple[str, ...] = (
            (field.companion("drq_length"),) if self._by_signs and field.metric == "L2" else ()
        )
        if field.metric == "IP":
            self._norm_lengths: tuple[int, ...] = ()
        elif given is None:
            self._norm_lengths = tuple(range(1, self._levels + 1))
        else:
            self._norm_lengths = norm_lengths(self._levels)[-NORMS:] if bits else ()

    @property
    def _code_ranks_better(self) -> bool:
        """True if the code is worth its bytes: it ranks better than as many sign bits.

        Of 117,159 MiniLM vectors a code of 512 bits finds .888 of the ten nearest, 512 sign bits .747
        (`make bench PARTS=codes`). Kept vectors rank better still, and need sign bits to find candidates only.
        """
        info = self.drq.info
        return not self._signs_rank or (self.field.storage == "dropped" and info.max_bits >= info.sign_bits)

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """See `Lowering.fields`."""
        bits = self.drq.info.sign_bits
        signs = FieldSpec(self.index.field, "BINARY_VECTOR", bits // 8, {"dim": bits})
        lengths = [FieldSpec(name, "FLOAT", 4) for name in self._length_fields]
        columns = [self._code(i) for i in range(-(-self._levels // 8))] + [
            self._norm(i) for i in range(-(-len(self._norm_lengths) // 4))
        ]
        return (signs, *lengths, *(FieldSpec(name, "INT64", 8) for name in columns))

    @property
    def index(self) -> NativeIndex:
        """See `Lowering.index`."""
        index_type = self.settings["binary_index"]
        return NativeIndex(self.field.companion("drq_sign"), index_type, "HAMMING", BINARY_INDEXES[index_type])

    @property
    def output_size(self) -> str:
        """See `Lowering.output_size`."""
        return f"{self.drq.info.sign_bits} sign bits" if self._by_signs else super().output_size

    @property
    def hint(self) -> str:
        """See `Lowering.hint`."""
        if not self._by_signs or self.field.storage != "dropped":
            return ""
        bits = self.drq.info.sign_bits
        return (
            f"Without the vectors its {bits} sign bits alone rank the rows. A longer code finds more of the nearest: "
            f"train the encoder with 'alula train drq --bits {2 * bits}'."
        )

    @property
    def ranks_candidates(self) -> bool:
        """See `Lowering.ranks_candidates`."""
        return True

    def _code(self, i: int) -> str:
        return self.field.companion(f"drq_code_{i}")

    def _norm(self, i: int) -> str:
        return self.field.companion(f"drq_norm_{i}")

    def encode_rows(self, vectors: F32) -> dict[str, Column]:
        """See `Lowering.encode_rows`."""
        rows = self.drq.encode_rows(vectors, checked=True, codes=not self._by_signs)
        columns: dict[str, Column] = {self.index.field: rows.signs}
        columns |= dict.fromkeys(self._length_fields, rows.sign_lengths)
        if self._levels:
            columns |= {self._code(i): column for i, column in enumerate(pack_bytes(rows.codes[:, : self._levels]))}
        if self._norm_lengths:
            norms = rows.norms[:, np.array(self._norm_lengths) - 1]
            columns |= {self._norm(i): column for i, column in enumerate(pack_norms(norms))}
        return columns

    def decode_rows(self, columns: Mapping[str, Column]) -> EncodedRows:
        """See `Lowering.decode_rows`; missing norms are NaN."""
        signs = cast("npt.NDArray[np.uint8]", columns[self.index.field])
        (stored,) = self._length_fields or (None,)
        lengths = np.ones(len(signs), np.float32) if stored is None else np.asarray(columns[stored], np.float32)
        if self._by_signs:
            return DrqRows(np.empty((len(signs), 0), np.uint8), np.empty((len(signs), 0), np.float32), signs, lengths)
        codes = unpack_bytes([columns[self._code(i)] for i in range(-(-self._levels // 8))], self._levels)
        norms = np.full(codes.shape, 1.0 if self.field.metric == "IP" else np.nan, np.float32)
        for place, length in enumerate(self._norm_lengths):
            norms[:, length - 1] = unpack_norms(columns[self._norm(place // 4)], place)
        return DrqRows(codes, norms, signs, lengths)

    def plan_search(self, queries: F32, options: Mapping[str, Any], limit: int) -> SearchPlan:
        """See `Lowering.plan_search`."""
        levels = self._search_levels(options["bits"])
        encoded = self.drq.encode_queries(queries, checked=True, tables=not self._by_signs)
        columns = [self._code(i) for i in range(-(-levels // 8))]
        if self._by_signs:
            columns = [self.index.field, *self._length_fields]
        elif self._norm_lengths:
            columns.append(self._norm(self._norm_lengths.index(levels) // 4))
        estimated = ESTIMATED if self._signs_rank else ESTIMATED_BY_CODE
        candidates, rerank = candidate_counts(options, limit, oversample=OVERSAMPLE, estimated=estimated)
        used = _SEARCH_PARAMS.get(self.settings["binary_index"], "")
        return SearchPlan(
            self.index.field,
            "HAMMING",
            [signs.tobytes() for signs in encoded.signs],
            candidates,
            self.field.metric,
            {used: options[used]} if used and options[used] else {},
            tuple(columns),
            _Queries(encoded, sign_tables(encoded.sign_weights) if self._by_signs else encoded.lut, levels),
            rerank,
            breadth="ef" if used == "ef" else "",
        )

    def _search_levels(self, bits: int | None) -> int:
        """The levels of the code to rank by; 0 where signs rank."""
        if not self._by_signs:
            return prefix_levels(self.drq, bits, self._norm_lengths or range(1, self._levels + 1))
        if bits is not None:
            raise UsageError(
                f"bits is {bits}, and this collection stores no codes: its {self.drq.info.sign_bits} sign bits rank. "
                "Leave bits=... out; code_bits stores codes when a collection is created."
            )
        return 0

    def estimate(self, plan: SearchPlan, query: int, candidates: Candidates) -> F32:
        """See `Lowering.estimate`."""
        queries, metric, scale = cast(_Queries, plan.state), self.field.metric, self.drq.info.scale
        encoded, levels = queries.encoded, queries.levels
        if self._by_signs:
            products = adc_inner_products(candidates.columns[self.index.field], queries.tables[query])
            bias = encoded.sign_bias[query]
            if metric == "COSINE":
                return cast(F32, products + bias)
            return adc_scores(products, candidates.columns[self._length_fields[0]], float(np.sqrt(bias)), metric, scale)
        codes = unpack_bytes([candidates.columns[self._code(i)] for i in range(-(-levels // 8))], levels)
        products = adc_inner_products(codes, queries.tables[query])
        norms = products
        if self._norm_lengths:
            place = self._norm_lengths.index(levels)
            norms = unpack_norms(candidates.columns[self._norm(place // 4)], place)
        return adc_scores(products, norms, float(encoded.norms[query]), metric, scale)


@dataclass(frozen=True)
class _Queries:
    """Encoded queries, and look-up tables (n, M, 256) of codes or bytes of signs."""

    encoded: DrqQueries
    tables: F32
    levels: int
