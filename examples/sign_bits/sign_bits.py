"""DRQ_SIGNS: a third-party index type in one file, the sign bits of a DRQ code.

Milvus finds the rows whose sign bits differ least from the query's; Alula ranks those by their exact vectors.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from alula.encoders import Encoder
from alula.errors import UnsupportedError
from alula.index_types import Capabilities, FieldSpec, IndexType, Lowering, NativeIndex, Option, SearchPlan, VectorField
from alula.index_types.capabilities import binary_probe


class SignBits(Lowering):
    """Storage and search: a BINARY_VECTOR beside the vectors, in a BIN_FLAT index."""

    @property
    def index(self) -> NativeIndex:
        """The searched native index."""
        return NativeIndex(self.field.companion("signs"), "BIN_FLAT", "HAMMING")

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """The companion field."""
        bits = self.encoder.info.sign_bits
        return (FieldSpec(self.index.field, "BINARY_VECTOR", bits // 8, {"dim": bits}),)

    def encode_rows(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """The companion columns of rows (n, d)."""
        return {self.index.field: self.encoder.encode_rows(vectors).signs}

    def plan_search(self, queries: np.ndarray, options: Mapping[str, Any], limit: int) -> SearchPlan:
        """The native search; Hamming distances are the estimates."""
        signs = [row.tobytes() for row in self.encoder.encode_queries(queries).signs]
        return SearchPlan(self.index.field, "HAMMING", signs, max(options["candidates"], limit), "HAMMING")


class DrqSigns(IndexType):
    """The index type: its name, its encoder kind, its need of a server."""

    name = "DRQ_SIGNS"
    encoder_kind = "drq"
    summary = "The sign bits of a DRQ code alone, ranked by the exact vectors."
    probes = (binary_probe("BIN_FLAT", "DRQ_SIGNS can be used", "DRQ_SIGNS cannot be used"),)
    search_options = (Option("candidates", int, "Rows to take by Hamming distance and score exactly.", 200),)

    def choose(self, capabilities: Capabilities, options: Mapping[str, Any]) -> dict[str, str]:
        """The settings to store with the collection."""
        del options  # this type has no create options
        if "BIN_FLAT" not in capabilities.binary_indexes:
            raise UnsupportedError(f"{capabilities.server} has no binary vectors; use Milvus, or Milvus Lite 2.5.")
        return {}

    def lowering(self, field: VectorField, encoder: Encoder, settings: Mapping[str, str]) -> Lowering:
        """The lowering of one collection."""
        return SignBits(field, encoder, settings)
