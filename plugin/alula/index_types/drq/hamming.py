"""The DRQ layout hamming: sign bits in a binary index, ranked by the codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from alula.encoders import DrqQueries, DrqRows
from alula.index_types.base import F32, Candidates, Column, SearchPlan
from alula.index_types.drq.lowering import DrqLowering
from alula.index_types.local import EncodedRows
from alula.index_types.native import FieldSpec, NativeIndex
from alula.kernels import adc_inner_products, adc_scores, pack_bytes, pack_norms, unpack_bytes, unpack_norms


class HammingLowering(DrqLowering):
    """Sign bits in a BINARY_VECTOR; codes and prefix norms in INT64 columns beside it.

    A column contains eight codes or four norms. INT64 columns are exact, are the cheapest scalar to store and to send,
    and a search reads only those of its prefix.
    """

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """See `Lowering.fields`."""
        info = self.drq.info
        signs = FieldSpec(self.index.field, "BINARY_VECTOR", info.sign_bits // 8, {"dim": info.sign_bits})
        columns = [self._code(i) for i in range(-(-info.levels // 8))] + (
            [self._norm(i) for i in range(-(-info.levels // 4))] if self.field.metric != "IP" else []
        )
        return (signs, *(FieldSpec(name, "INT64", 8) for name in columns))

    @property
    def index(self) -> NativeIndex:
        """See `Lowering.index`."""
        index_type = self.settings["binary_index"]
        params = {"nlist": 1024} if index_type == "BIN_IVF_FLAT" else {}
        return NativeIndex(self.field.companion("drq_sign"), index_type, "HAMMING", params)

    def _code(self, i: int) -> str:
        return self.field.companion(f"drq_code_{i}")

    def _norm(self, i: int) -> str:
        return self.field.companion(f"drq_norm_{i}")

    def encode_rows(self, vectors: F32) -> dict[str, Column]:
        """See `Lowering.encode_rows`."""
        rows = self.drq.encode_rows(vectors, checked=True)
        columns: dict[str, Column] = {self.index.field: rows.signs}
        columns |= {self._code(i): column for i, column in enumerate(pack_bytes(rows.codes))}
        if self.field.metric != "IP":
            columns |= {self._norm(i): column for i, column in enumerate(pack_norms(rows.norms))}
        return columns

    def decode_rows(self, columns: Mapping[str, Column]) -> EncodedRows:
        """See `Lowering.decode_rows`."""
        levels = self.drq.info.levels
        codes = unpack_bytes([columns[self._code(i)] for i in range(-(-levels // 8))], levels)
        norms = np.ones(codes.shape, np.float32)
        if self.field.metric != "IP":
            for level in range(levels):
                norms[:, level] = unpack_norms(columns[self._norm(level // 4)], level)
        return DrqRows(codes, norms, cast("npt.NDArray[np.uint8]", columns[self.index.field]))

    def plan_search(self, queries: F32, options: Mapping[str, Any], limit: int) -> SearchPlan:
        """See `Lowering.plan_search`."""
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
        """See `Lowering.estimate`."""
        encoded, levels = cast("tuple[DrqQueries, int]", plan.state)
        codes = unpack_bytes([candidates.columns[self._code(i)] for i in range(-(-levels // 8))], levels)
        products = adc_inner_products(codes, encoded.lut[query])
        norms = products
        if self.field.metric != "IP":
            norms = unpack_norms(candidates.columns[self._norm((levels - 1) // 4)], levels - 1)
        return adc_scores(products, norms, float(encoded.norms[query]), self.field.metric, self.drq.info.scale)
