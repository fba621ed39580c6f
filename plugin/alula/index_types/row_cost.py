"""Bytes that one row takes in a server, computed from Milvus's own structures.

The structures are those of Milvus 2.3.5. ``benchmarks/milvus/memory.py`` holds the sums against the resident memory of
a restarted server. Memory that does not grow with the rows is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alula.encoders import Encoder
from alula.index_types.base import Lowering, VectorField, choose_storage, vector_spec
from alula.index_types.capabilities import BINARY_INDEXES, Capabilities
from alula.index_types.faiss_factory import read_factory
from alula.index_types.native import FieldSpec
from alula.index_types.options import check_options
from alula.index_types.registry import index_type_for

KEPT = "kept vectors"
FREED = (
    "loading the column frees about twice as much, which Milvus 2.3 returns to the system only if its environment "
    "has MALLOC_CONF=background_thread:true"
)
COMPARED: Mapping[str, Mapping[str, Any]] = {"HNSW": {"M": 16}, "IVF_SQ8": {}}  # what a cost is shown beside
_FLOAT = 4
_ID = 8
# the sorted array that finds a row by its key: a key and an offset of 8 bytes each, in a std::vector that grows by
# doubling, so that up to twice as much is held: 16 / ln 2 bytes on average
_KEY_ENTRY = 23
_TIMESTAMP = 8
_STRING = 32  # std::string, which holds up to 15 bytes itself
_OFFSET, _VIEW = 8, 16  # of a column whose values have lengths: where a value begins, and a string_view of it
# of an ARRAY, beside its numbers: its offset, and an object that points to it with its size and type; both lists grow
# by doubling
_ARRAY = 115
_MUTEX = 40  # std::mutex
# jemalloc has four sizes between powers of two, and rounds the memory of each inverted list up to one: by an
# eleventh on average
_ROUNDING = 0.09
_NEIGHBOURS = 57  # DISKANN: 56 neighbours and their number


@dataclass(frozen=True)
class RowCost:
    """Bytes for one row.

    Args:
        memory: Bytes that a search needs in memory, by structure.
        disk: Bytes that may stay on disk during a search, by structure.
        note: A remark on the figures.
    """

    memory: Mapping[str, float]
    disk: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def memory_bytes(self) -> float:
        """All bytes in memory."""
        return float(sum(self.memory.values()))

    @property
    def disk_bytes(self) -> float:
        """All bytes on disk."""
        return float(sum(self.disk.values()))


def key_cost(data_type: str, length: int = 0) -> RowCost:
    """The cost of a primary key and of Milvus's own columns in every collection.

    Args:
        data_type: ``INT64`` or ``VARCHAR``.
        length: Mean length of a VARCHAR, in bytes of UTF-8.
    """
    if data_type == "INT64":
        return RowCost({"key": 8, "key index": _KEY_ENTRY, "timestamp": _TIMESTAMP})
    outside = length + 1 if length > 15 else 0
    entry = _STRING * _KEY_ENTRY / 16 + _KEY_ENTRY / 2 + outside
    return RowCost({"key": length + _OFFSET + _VIEW, "key index": entry, "timestamp": _TIMESTAMP})


def lowering_cost(lowering: Lowering, *, maps: bool) -> RowCost:
    """The cost of an Alula index and of kept vectors, without the primary key.

    Args:
        lowering: The index type on a field.
        maps: True if the server maps vector fields from disk.
    """
    return fields_cost(lowering.field, lowering.fields, lowering.index.index_type, maps=maps)


def encoder_cost(encoder: Encoder, capabilities: Capabilities, *, keep_vectors: bool, maps: bool) -> RowCost:
    """The cost of an encoder's index type on a server, without the primary key.

    The index type has its default options.

    Args:
        encoder: The encoder.
        capabilities: The server's capabilities.
        keep_vectors: True to keep the vectors.
        maps: True if the server maps vector fields from disk.

    Raises:
        UnsupportedError: If the server cannot store it.
        UsageError: If there is no index type for the encoder.
    """
    kind, info = index_type_for(encoder), encoder.info
    settings = kind.choose(capabilities, check_options(kind.create_options, {}, kind.name))
    vector = VectorField("vector", info.input_dim, info.metric, choose_storage(keep_vectors, capabilities))
    return lowering_cost(kind.lowering(vector, encoder, settings), maps=maps)


def fields_cost(vector: VectorField, companions: Sequence[FieldSpec], index_type: str, *, maps: bool) -> RowCost:
    """The cost of companion fields and of kept vectors, without the primary key.

    Args:
        vector: The user's vector field.
        companions: The fields that the index type adds.
        index_type: The type of the native index that is searched.
        maps: True if the server maps vector fields from disk.
    """
    memory: dict[str, float] = {}
    for spec in companions:
        # numbered columns are one structure
        name = re.sub(r"(_\d+)$", "", spec.name.removeprefix(vector.companion(""))).replace("_", " ")
        memory[name] = memory.get(name, 0) + spec.bytes_per_row
    if "IVF" in index_type:
        memory["ids"] = _ID
    if index_type == "HNSW":
        memory["graph"] = _hnsw_graph(BINARY_INDEXES[index_type]["M"])
    kept = vector_spec(vector)
    if kept is None:
        return RowCost(memory, note="the vectors were dropped")
    if vector.storage == "column":
        note = f"this server keeps the vectors in an ARRAY column, in memory; {FREED}"
        return RowCost({**memory, KEPT: kept.bytes_per_row + _ARRAY}, note=note)
    if not maps:
        note = "this server keeps the vectors in memory; a row takes several times these bytes there"
        return RowCost({**memory, KEPT: kept.bytes_per_row}, note=note)
    return RowCost(memory, {KEPT: kept.bytes_per_row}, "kept vectors are memory-mapped")


def native_cost(index_type: str, dim: int, params: Mapping[str, Any], rows: int | None = None) -> RowCost:
    """The cost of one of Milvus's own index types, without the primary key.

    Args:
        index_type: ``FLAT``, ``DISKANN``, ``SCANN``, ``FAISS``, or a type whose name starts with ``HNSW`` or ``IVF``.
        dim: The dimension of its float32 vectors.
        params: Its build parameters.
        rows: The number of rows that share centroids and tables; None to leave these out.

    Raises:
        KeyError: If the index type is another one, or needs a build parameter that is not given.
    """
    vectors = _FLOAT * dim
    if index_type == "FLAT":
        return RowCost({"vectors": vectors})
    if index_type == "HNSW":
        return RowCost({"vectors": vectors, "graph": _hnsw_graph(int(params["M"]))})
    if index_type in _HNSW_CODES:
        memory = {"codes": _HNSW_CODES[index_type](dim, params), "graph": _faiss_graph(int(params["M"]))}
        return RowCost(memory | _refining(dim, params), note=_UNMEASURED)
    if index_type == "DISKANN":
        note = "DISKANN: by Milvus's default PQCodeBudgetGBRatio of 0.125 and 56 neighbours"
        return RowCost({"codes": vectors / 8}, {"vectors": vectors, "graph": _FLOAT * _NEIGHBOURS}, note)
    if index_type == "FAISS":
        return _faiss_cost(params["faiss_index_name"], dim, rows)
    codes = _IVF_CODES[index_type](dim, params)
    memory = {"vectors": codes, "ids": float(_ID), "rounding": _ROUNDING * (codes + _ID), **_refining(dim, params)}
    if rows:
        tables = int(params["nlist"]) + (2 ** int(params["nbits"]) if index_type == "IVF_PQ" else 0)
        memory["centroids"] = _FLOAT * dim * tables / rows
    return RowCost(memory, note=_UNMEASURED if index_type == "IVF_RABITQ" else "")


def _faiss_cost(text: str, dim: int, rows: int | None) -> RowCost:
    """The cost of an index of faiss by its factory string."""
    factory = read_factory(text, dim)
    if factory.code_bytes is None or factory.refining_bytes is None:
        return RowCost({}, note=f"the bytes of a row in {text} are not known, and not counted")
    memory = {"codes": factory.code_bytes}
    if factory.refines:
        memory["refining codes"] = factory.refining_bytes
    if factory.links:
        memory["graph"] = _faiss_graph(factory.links)
    if factory.lists:
        memory |= {"ids": float(_ID), "rounding": _ROUNDING * (factory.code_bytes + _ID)}
        memory |= {"centroids": _FLOAT * dim * factory.lists / rows} if rows else {}
    return RowCost(memory, note=_UNMEASURED)


def _refining(dim: int, params: Mapping[str, Any]) -> dict[str, float]:
    """Bytes of the finer code of a row that an index refines by."""
    return {"refining codes": dim * _PRECISIONS[params.get("refine_type", "FP32")]} if params.get("refine") else {}


_UNMEASURED = "by structure: the formula was not held against a server that has this index type"
_PRECISIONS = {"SQ4U": 0.5, "SQ6": 0.75, "SQ8": 1.0, "FP16": 2.0, "BF16": 2.0, "FP32": 4.0}  # bytes of a number
_HNSW_CODES: Mapping[str, Callable[[int, Mapping[str, Any]], float]] = {
    "HNSW_SQ": lambda dim, params: dim * _PRECISIONS[params["sq_type"]],
    "HNSW_PQ": lambda _, params: int(params["m"]) * int(params["nbits"]) / 8,
    "HNSW_PRQ": lambda _, params: int(params["m"]) * int(params["nrq"]) * int(params["nbits"]) / 8,
}
# bytes of a row's code by (dimension, build parameters)
_IVF_CODES: Mapping[str, Callable[[int, Mapping[str, Any]], float]] = {
    "IVF_FLAT": lambda dim, _: _FLOAT * dim,
    "IVF_SQ8": lambda dim, _: dim,
    "IVF_PQ": lambda _, params: int(params["m"]) * int(params["nbits"]) / 8,
    "IVF_RABITQ": lambda dim, _: -(-dim // 8) + 2 * _FLOAT,  # a bit a dimension, and two factors
    # codes of 4 bits for each two dimensions, and the vectors that re-rank them
    "SCANN": lambda dim, _: _FLOAT * dim + dim / 4,
}


def _hnsw_graph(links: int) -> float:
    """Bytes of hnswlib's graph for a row, without the vector."""
    lowest = _FLOAT * (2 * links + 1) + _ID  # neighbours, their number, the row's label
    # a pointer to the levels above, the number of these, and a lock
    row = _ID + _FLOAT + _MUTEX
    # M neighbours and their number on each of the 1 / (M - 1) levels that a row has above the lowest, on average
    return lowest + row + _FLOAT * (links + 1) / max(1, links - 1)


def _faiss_graph(links: int) -> float:
    """Bytes of faiss's graph for a row: neighbours, where they begin, the level."""
    return _FLOAT * (2 * links + links / max(1, links - 1)) + _ID + _FLOAT
