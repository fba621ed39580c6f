"""FLOPS_SPARSE: learned sparse rows in an inverted index, re-ranked exactly.

Paria et al., Minimizing FLOPs to Learn Efficient Sparse Representations, ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import scipy.sparse as sp

from alula.encoders import Encoder, FlopsEncoder, Metric, read_linear_head, sparse_queries
from alula.errors import UnsupportedError
from alula.index_types.base import F32, NO_SETTINGS, Column, IndexType, Lowering, SearchPlan, VectorField
from alula.index_types.capabilities import Capabilities, Probe, algorithm_probe, sparse_probe
from alula.index_types.local import EncodedRows, LocalIndex, Mask
from alula.index_types.native import POSTING_BYTES, FieldSpec, NativeIndex
from alula.index_types.options import Option, Sweep, candidate_counts, candidate_options
from alula.kernels import InvertedIndex, LinearQueries, TopK

_ALGORITHM = "inverted_index_algo"
_SINDI = algorithm_probe("SINDI")


def _fewer_terms(encoder: Encoder, _: Mapping[str, Any]) -> list[int]:
    most = encoder.info.max_nnz
    return sorted({most // 2, most // 4} - {0}, reverse=True)


class FlopsSparse(IndexType):
    """The index type FLOPS_SPARSE."""

    name = "FLOPS_SPARSE"
    encoder_kind = "flops"
    summary = "Learned sparse vectors in an inverted index whose cost per query is a number you ask for in training."
    create_options = (
        Option(
            _ALGORITHM,
            str,
            "Milvus's way through the inverted index, from 2.5.4 on. DAAT_WAND and DAAT_MAXSCORE skip rows where terms "
            "differ in weight; the terms of these encoders are balanced, and leave little to skip. SINDI needs Milvus "
            "3.0.1 with index version 10, and is tried first, in some seconds.",
            "TAAT_NAIVE",
            choices=("TAAT_NAIVE", "DAAT_WAND", "DAAT_MAXSCORE", _SINDI.name),
        ),
    )
    search_options = (
        *candidate_options(50),
        Option(
            "terms",
            int,
            "The number of the query's heaviest terms to send; all by default. Fewer are faster.",
            sweep=Sweep(_fewer_terms),
        ),
    )

    local_options = search_options
    oversample = 50

    probes = (sparse_probe("FLOPS_SPARSE works", "no FLOPS_SPARSE"),)

    def option_probes(self, options: Mapping[str, Any]) -> tuple[Probe, ...]:
        """See `IndexType.option_probes`; Milvus accepts SINDI always."""
        return (_SINDI,) if options[_ALGORITHM] == _SINDI.name else ()

    def choose(self, capabilities: Capabilities, options: Mapping[str, Any]) -> dict[str, str]:
        """See `IndexType.choose`."""
        if not capabilities.sparse_index:
            raise UnsupportedError(
                f"{capabilities.server} cannot index sparse vectors "
                f"({capabilities.reasons.get('sparse_index', 'no reason given')}), which FLOPS_SPARSE needs; use "
                'Milvus 2.4 or later or Milvus Lite, or a DRQ encoder with index_type="DRQ".'
            )
        if options[_ALGORITHM] == _SINDI.name and _SINDI.name not in capabilities.supported:
            reason = capabilities.reasons.get(_SINDI.name, "it was not tried")
            raise UnsupportedError(
                f"{capabilities.server} builds no index for SINDI ({reason}); leave {_ALGORITHM}=... out, or set "
                "dataCoord.targetVecIndexVersion to 10 in Milvus 3.0.1 or later."
            )
        return {_ALGORITHM: options[_ALGORITHM]}

    def lowering(self, field: VectorField, encoder: Encoder, settings: Mapping[str, str]) -> Lowering:
        """See `IndexType.lowering`."""
        return _FlopsLowering(field, encoder, settings)

    def local(
        self,
        encoder: Encoder,
        metric: Metric,
        *,
        keep_vectors: bool,
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> LocalIndex:
        """See `IndexType.local`."""
        del settings
        info = encoder.info
        index = InvertedIndex(info.dim, metric, info.input_dim if keep_vectors else None)
        return _LocalFlops(cast(FlopsEncoder, encoder), index)

    def open_local(self, folder: Path, encoder: Encoder, *, settings: Mapping[str, str] = NO_SETTINGS) -> LocalIndex:
        """See `IndexType.open_local`."""
        del settings
        return _LocalFlops(cast(FlopsEncoder, encoder), InvertedIndex.load(folder))


class _FlopsLowering(Lowering):
    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        name = self.field.companion("flops")
        return (FieldSpec(name, "SPARSE_FLOAT_VECTOR", POSTING_BYTES * self.encoder.info.max_nnz),)

    @property
    def index(self) -> NativeIndex:
        algorithm = self.settings.get(_ALGORITHM, "TAAT_NAIVE")  # collections of earlier versions say nothing
        return NativeIndex(self.fields[0].name, "SPARSE_INVERTED_INDEX", "IP", {_ALGORITHM: algorithm})

    def encode_rows(self, vectors: F32) -> dict[str, Column]:
        return {self.fields[0].name: cast(FlopsEncoder, self.encoder).encode_rows(vectors, checked=True)}

    def decode_rows(self, columns: Mapping[str, Column]) -> EncodedRows:
        return cast(sp.csr_array, columns[self.fields[0].name])

    def plan_search(self, queries: F32, options: Mapping[str, Any], limit: int) -> SearchPlan:
        rows = cast(FlopsEncoder, self.encoder).encode_queries(queries, checked=True)
        native = sparse_queries(rows, options["terms"])
        candidates, rerank = candidate_counts(options, limit, oversample=FlopsSparse.oversample)
        return SearchPlan(self.index.field, "IP", native, candidates, "IP", rerank=rerank)


class _LocalFlops(LocalIndex):
    def __init__(self, encoder: FlopsEncoder, index: InvertedIndex) -> None:
        super().__init__(index)
        self._encoder, self._index = encoder, index
        head = read_linear_head(encoder)
        self._linear = head and LinearQueries(head.weight, head.bias, nnz=head.nnz, floor=head.floor, scale=head.scale)

    def add(self, rows: EncodedRows, vectors: F32 | None = None) -> None:
        self._index.add(cast(sp.csr_array, rows), vectors)

    def search(
        self,
        queries: F32,
        limit: int,
        options: Mapping[str, Any],
        *,
        rerank: int | None = None,
        valid: Mask | None = None,
    ) -> TopK:
        # without exact scores the weights themselves are the result, so they must be the encoder's
        rough = self._linear is not None and self.keeps_vectors and rerank != 0
        return self._index.search(
            self._linear.of(queries) if self._linear and rough else self._encoder.encode_queries(queries, checked=True),
            limit,
            vectors=queries,
            candidates=options["candidates"],
            terms=options["terms"],
            rerank=rerank,
            valid=valid,
        )
