"""The abilities of one server, and the probes that find them out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alula.errors import AlulaError
from alula.index_types.native import FieldSpec, NativeIndex

# Index types that BINARY_VECTOR can have, with build parameters. HNSW has them in 2.3, and again from 2.6.4 on.
BINARY_INDEXES: Mapping[str, Mapping[str, int]] = {
    "BIN_FLAT": {},
    "BIN_IVF_FLAT": {"nlist": 1024},
    "HNSW": {"M": 16, "efConstruction": 200},
}


@dataclass(frozen=True)
class Probe:
    """A test of a server: the creation of a collection with some fields and an index.

    Milvus accepts some indexes that it cannot build; with a row, the index is built as well.

    Args:
        name: Its name, in `Capabilities.supported` and ``reasons``. Probes of an index on binary vectors have the name
            of the index type. Several index types may declare one name, with the same fields and index.
        question: The question in ``alula doctor``.
        fields: The fields beside an INT64 key.
        index: The index, on one of the fields.
        yes: The meaning for users if it works.
        no: The meaning if it does not.
        since: The first version of Milvus that passes it, such as ``2.6.4``, for logins that may not run it.
        row: The fields of a row, to build the index over many of it; none to have the index accepted only.
    """

    name: str
    question: str
    fields: tuple[FieldSpec, ...]
    index: NativeIndex
    yes: str = ""
    no: str = ""
    since: str = ""
    row: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def merged(self, other: Probe) -> Probe:
        """This probe with the meanings of another one of the same name.

        Raises:
            AlulaError: If the other one has other fields or another index.
        """
        if (self.fields, self.index) != (other.fields, other.index):
            raise AlulaError(f"Two index types declare different probes {self.name!r}; rename one of them.")
        meanings = [(self.yes, other.yes), (self.no, other.no)]
        yes, no = ("; ".join(dict.fromkeys(filter(None, pair))) for pair in meanings)
        return dataclasses.replace(self, yes=yes, no=no)


@dataclass(frozen=True)
class Capabilities:
    """The abilities of one server, found by `alula.milvus.capabilities.probe`.

    Args:
        server: The server's name and version.
        supported: Names of the probes that it passed.
        reasons: Its error messages for the others.
    """

    server: str
    supported: frozenset[str]
    reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def knows(self, probe: Probe) -> bool:
        """True if the server passed or failed a probe."""
        return probe.name in self.supported or probe.name in self.reasons

    @property
    def sparse_index(self) -> bool:
        """True if SPARSE_FLOAT_VECTOR can be indexed with SPARSE_INVERTED_INDEX."""
        return "sparse_index" in self.supported

    @property
    def binary_indexes(self) -> frozenset[str]:
        """Index types that BINARY_VECTOR can have."""
        return self.supported & set(BINARY_INDEXES)

    @property
    def several_vector_fields(self) -> bool:
        """True if a collection may have more than one vector field."""
        return "several_vector_fields" in self.supported

    @property
    def half_vectors(self) -> bool:
        """True if FLOAT16_VECTOR fields can be indexed."""
        return "half_vectors" in self.supported

    @property
    def array_field(self) -> bool:
        """True if ARRAY fields exist."""
        return "array_field" in self.supported


_FLOAT = FieldSpec("float", "FLOAT_VECTOR", 16, {"dim": 4})
_OTHER_FLOAT = FieldSpec("other", "FLOAT_VECTOR", 16, {"dim": 4})
_ARRAY = FieldSpec("array", "ARRAY", 16, {"element_type": "FLOAT", "max_capacity": 4})
_HALF = FieldSpec("half", "FLOAT16_VECTOR", 8, {"dim": 4})
_FLAT = NativeIndex("float", "FLAT", "COSINE")

STORAGE_PROBES = (  # of `choose_storage`
    Probe(
        "several_vector_fields",
        "several vector fields",
        (_FLOAT, _OTHER_FLOAT),
        _FLAT,
        "vectors are kept in a field of their own",
        "vectors are kept in an ARRAY column, or dropped",
        since="2.4",
    ),
    Probe("array_field", "ARRAY fields", (_FLOAT, _ARRAY), _FLAT, since="2.3"),
    Probe(
        "half_vectors",
        "vectors of half precision",
        (_HALF,),
        NativeIndex("half", "FLAT", "COSINE"),
        "kept vectors may take half the disk",
        "kept vectors are float32",
        since="2.4",
    ),
)


_SPARSE = FieldSpec("sparse", "SPARSE_FLOAT_VECTOR", 8)


def sparse_probe(yes: str, no: str) -> Probe:
    """The probe of a sparse inverted index, with its meanings for one index type."""
    index = NativeIndex("sparse", "SPARSE_INVERTED_INDEX", "IP")
    return Probe("sparse_index", "sparse inverted index", (_SPARSE,), index, yes, no, since="2.4")


def algorithm_probe(algorithm: str) -> Probe:
    """The probe of a sparse inverted index that is built for one algorithm."""
    index = NativeIndex("sparse", "SPARSE_INVERTED_INDEX", "IP", {"inverted_index_algo": algorithm})
    row = {"sparse": {0: 1.0, 9: 0.5}}
    return Probe(algorithm, f"a sparse inverted index for {algorithm}", (_SPARSE,), index, row=row)


def binary_probe(index_type: str, yes: str, no: str) -> Probe:
    """The probe of one of `BINARY_INDEXES`, with its meanings for one index type."""
    fields = (FieldSpec("binary", "BINARY_VECTOR", 8, {"dim": 64}),)
    index = NativeIndex("binary", index_type, "HAMMING", BINARY_INDEXES[index_type])
    since = "2.6.4" if index_type == "HNSW" else "2.0"
    return Probe(index_type, f"binary index {index_type}", fields, index, yes, no, since)
