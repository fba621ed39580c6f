"""Indexes, and where vectors lie, as Milvus 2.4 and later handle them."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.message import Message
from pymilvus import DataType
from pymilvus.grpc_gen import common_pb2

from tools.servers.versions.rule import Call, RefusedError, Rule, Version, params_of, parse, written

MMAP = "mmap.enabled"
INDEXED_ROWS = 1024  # Milvus's default of minSegmentNumRowsToEnableIndex
REFUSED_BUILD = "SINDI is not supported by this index version"
OWN_PARAMS = ("metric_type", "radius", "range_filter")  # of a search, which are not faiss's
NO_TRAIN = ("FLAT", "BIN_FLAT")
VECTOR_BYTES = {"FLOAT_VECTOR": 4.0, "BINARY_VECTOR": 0.125, "FLOAT16_VECTOR": 2.0, "BFLOAT16_VECTOR": 2.0}


class OneDistinctIndex(Rule):
    """An index is compared with all requested keys, and not all are stored."""

    since = "2.4.4"
    source = "milvus internal/datacoord/index_meta.go checkParams, CanCreateIndex"
    methods = ("CreateIndex",)

    def ask(self, call: Call) -> None:
        """See `Rule.ask`."""
        before = call.known.indexes.get(call.request.field_name)
        if before is None:
            return
        stored = {key: value for key, value in before.items() if key != MMAP}
        if stored != params_of(call.request.extra_params):
            raise RefusedError(65535, "CreateIndex failed: at most one distinct index is allowed per field")


class ForcedAutoIndex(Rule):
    """Where AUTOINDEX is forced, a vector index may not name ``mmap.enabled``."""

    since = "2.4.17"
    source = "milvus internal/proxy/util.go ValidateAutoIndexMmapConfig"
    methods = ("CreateIndex",)

    def ask(self, call: Call) -> None:
        """See `Rule.ask`."""
        if MMAP in params_of(call.request.extra_params) and call.request.field_name in _vector_fields(call):
            raise RefusedError(1100, "mmap index is not supported to config for the collection in auto index mode")


class MmapOfIndexes(Rule):
    """``mmap.enabled`` of an index can be altered, and no other key of it."""

    since = "2.4.0"
    source = "milvus internal/datacoord/index_service.go AlterIndex"
    methods = ("AlterIndex",)

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self.altered: list[str] = []  # names of indexes

    def ask(self, call: Call) -> Message:
        """See `Rule.ask`; the engine maps nothing."""
        unknown = {pair.key for pair in call.request.extra_params} - {MMAP}
        if unknown:
            raise RefusedError(1100, f"{min(unknown)} is not a configable index property")
        if call.request.index_name not in call.known.names.values():
            raise RefusedError(700, f"index not found[index={call.request.index_name}]")
        self.altered.append(call.request.index_name)
        return common_pb2.Status()


class FieldMemory(Rule):
    """A FLAT index is not built: the column is loaded, mapped by its parameter."""

    since = "2.4.0"
    source = "milvus internal/querynodev2/segments/utils.go isDataMmapEnable; milvus.yaml queryNode.mmap.vectorField"
    methods = ("LoadCollection",)

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self.resident: dict[str, dict[str, float]] = {}  # bytes of a row in memory, by collection and field

    def answer(self, call: Call, response: Any) -> None:
        """See `Rule.answer`."""
        del response
        by_default = "true" if self.version >= parse("2.6.0") else "false"
        resident = {}
        for name, field in _vector_fields(call).items():
            given = {pair.key: pair.value for pair in field.type_params}
            raw = call.known.indexes.get(name, {}).get("index_type") in NO_TRAIN
            if raw and given.get(MMAP, by_default) != "true":
                resident[name] = int(given.get("dim", 0)) * VECTOR_BYTES[DataType(field.data_type).name]
        self.resident[call.request.collection_name] = resident


class WarmedFields(Rule):
    """Vectors that are not warmed up stay in object storage until a search."""

    since = "2.6.11"
    source = "milvus pkg/util/paramtable tieredStorage.warmup.vectorField; the type parameter warmup"
    methods = ("LoadCollection",)

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self.cold: dict[str, set[str]] = {}  # fields that a load leaves in object storage, by collection

    def answer(self, call: Call, response: Any) -> None:
        """See `Rule.answer`."""
        del response
        self.cold[call.request.collection_name] = {
            name
            for name, field in _vector_fields(call).items()
            if call.known.indexes.get(name, {}).get("index_type") in NO_TRAIN
            and {pair.key: pair.value for pair in field.type_params}.get("warmup", "disable") == "disable"
        }


class HalfPrecisionPostings(Rule):
    """Postings for IP have half precision, unless ``quant_type`` is ``fp32``."""

    since = "3.0.0"
    source = "knowhere src/index/sparse CreateIndex; milvus.yaml dataCoord.targetVecIndexVersion: 10"
    methods = ("Insert", "Upsert")

    def ask(self, call: Call) -> None:
        """See `Rule.ask`; it rounds rows that are written after the index exists."""
        import numpy as np

        for column in call.request.fields_data:
            index = call.known.indexes.get(column.field_name, {})
            half = index.get("index_type", "").startswith("SPARSE") and index.get("quant_type") != "fp32"
            if half and index.get("metric_type") == "IP":
                sparse = column.vectors.sparse_float_vector
                for i, row in enumerate(sparse.contents):
                    pairs = np.frombuffer(row, [("dim", "<u4"), ("value", "<f4")]).copy()
                    pairs["value"] = pairs["value"].astype(np.float16)
                    sparse.contents[i] = pairs.tobytes()


class Sindi(Rule):
    """SINDI is accepted at creation; below index version 10 the build fails.

    Segments of fewer rows than an index needs are not built, and count as indexed.
    """

    since = "3.0.0"
    source = "knowhere src/index/sparse ValidateInvertedIndexAlgo; milvus internal/util/indexparamcheck"
    methods = ("CreateIndex", "Insert", "DescribeIndex", "GetIndexState")
    index_version = 10  # milvus.yaml of 3.0; the code's own default is -1, the engine's

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self._rows: dict[str, int] = {}  # by collection

    def ask(self, call: Call) -> None:
        """See `Rule.ask`; the engine gets an algorithm that it knows."""
        if call.method == "Insert":
            name = call.request.collection_name
            self._rows[name] = self._rows.get(name, 0) + call.request.num_rows
        if call.method == "CreateIndex" and self._asked(params_of(call.request.extra_params)):
            written(call.request.extra_params, "inverted_index_algo", "TAAT_NAIVE")

    def answer(self, call: Call, response: Any) -> None:
        """See `Rule.answer`."""
        asked = {field for field, params in call.known.indexes.items() if self._asked(params)}
        rows = self._rows.get(call.request.collection_name, 0)
        failed = self.index_version < 10 and rows >= INDEXED_ROWS
        if call.method == "GetIndexState" and asked and failed:
            response.state, response.fail_reason = common_pb2.IndexState.Failed, REFUSED_BUILD
        elif call.method == "DescribeIndex":
            for index in response.index_descriptions:
                if index.field_name in asked:  # Milvus Lite counts no rows
                    index.total_rows = rows
                    index.indexed_rows = 0 if failed else rows
                    if failed:
                        index.state, index.index_state_fail_reason = common_pb2.IndexState.Failed, REFUSED_BUILD

    @staticmethod
    def _asked(params: dict[str, str]) -> bool:
        return params.get("inverted_index_algo") == "SINDI"


class FaissStrings(Rule):
    """FAISS takes a factory string, which says what a search may set.

    A string that faiss does not understand is accepted at creation, and its build fails.
    """

    since = "3.0.0"
    source = "knowhere src/index/faiss; thirdparty/faiss/faiss/cppcontrib/knowhere/SearchParamsDispatch.cpp"
    methods = ("CreateIndex", "DescribeIndex", "Search")

    def ask(self, call: Call) -> None:
        """See `Rule.ask`; the engine gets an exact index."""
        if call.method == "CreateIndex" and self._strings({"": params_of(call.request.extra_params)}):
            if not params_of(call.request.extra_params).get("faiss_index_name"):
                raise RefusedError(1100, "param 'faiss_index_name' not exist in json")
            written(call.request.extra_params, "index_type", "FLAT")
            written(call.request.extra_params, "faiss_index_name", None)
        elif call.method == "Search":
            given = {pair.key: pair.value for pair in call.request.search_params}
            text = self._strings(call.known.indexes).get(given.get("anns_field", ""))
            for name in json.loads(given.get("params") or "{}") if text else ():
                if name not in (*OWN_PARAMS, *_settable(_index(call, given["anns_field"], text))):
                    raise RefusedError(
                        65535, f"faiss vanilla: search param '{name}' not supported for this index family"
                    )

    def answer(self, call: Call, response: Any) -> None:
        """See `Rule.answer`."""
        if call.method != "DescribeIndex":
            return
        strings = self._strings(call.known.indexes)
        for index in response.index_descriptions:
            if index.field_name in strings and _index(call, index.field_name, strings[index.field_name]) is None:
                index.state = common_pb2.IndexState.Failed
                index.index_state_fail_reason = "faiss::index_factory failed"

    @staticmethod
    def _strings(indexes: dict[str, dict[str, str]]) -> dict[str, str]:
        """The factory strings by field."""
        return {
            field: params.get("faiss_index_name", "")
            for field, params in indexes.items()
            if params.get("index_type") == "FAISS"
        }


def _index(call: Call, field: str, text: str) -> Any:
    """The index that a factory string names; None if faiss does not understand it."""
    import faiss

    (dim,) = [int(p.value) for p in _vector_fields(call)[field].type_params if p.key == "dim"]
    try:
        return faiss.index_factory(dim, text)
    except RuntimeError:
        return None


def _settable(index: Any) -> set[str]:
    """The parameters of a search that knowhere has for an index of faiss."""
    import faiss

    known = faiss.downcast_index(index)  # which does not own what `index` does
    if isinstance(known, faiss.IndexPreTransform):
        return _settable(known.index)
    if isinstance(known, faiss.IndexRefine):
        return {"k_factor"} | _settable(known.base_index)
    families = {
        faiss.IndexHNSW: {"efSearch", "check_relative_distance", "bounded_queue"},
        faiss.IndexIVF: {"nprobe", "max_codes"},
        faiss.IndexPQ: {"polysemous_ht", "search_type"},
    }
    return next((names for family, names in families.items() if isinstance(known, family)), set())


def _vector_fields(call: Call) -> dict[str, Any]:
    """The vector fields of a collection by name, as the client declared them."""
    return {f.name: f for f in call.known.schema.fields if DataType(f.data_type).name in VECTOR_BYTES}
