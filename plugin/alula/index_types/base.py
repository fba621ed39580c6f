"""The contract of an index type: its fields, native index, searches and ranking.

Everything here is plain data on numpy and scipy. Nothing knows pymilvus, so the same index type serves the Python
client, the bulk writer and the gateway.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from alula.encoders import Encoder, Metric, NativeQuery
from alula.errors import UnsupportedError, UsageError
from alula.index_types.capabilities import Capabilities, Probe
from alula.index_types.native import FieldSpec, NativeIndex
from alula.index_types.options import COMMON_SEARCH_OPTIONS, Option

if TYPE_CHECKING:
    from alula.index_types.local import EncodedRows, LocalIndex

F32 = npt.NDArray[np.float32]
Column: TypeAlias = "npt.NDArray[Any] | sp.csr_array"
Storage = Literal["field", "column", "dropped"]
# Types of the field of kept vectors, with the bytes of a number. Milvus's BFLOAT16_VECTOR takes as many as the second
# and rounds eight times as coarsely.
VECTOR_TYPES: Mapping[str, int] = MappingProxyType({"FLOAT_VECTOR": 4, "FLOAT16_VECTOR": 2})

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})  # of rows that are in no collection


@dataclass(frozen=True)
class VectorField:
    """The user's vector field.

    Args:
        name: The field's name.
        dim: Its dimension d.
        metric: The user's metric.
        storage: Where the vectors themselves are: a ``field`` of vectors, an ARRAY ``column`` (servers with one
            vector field per collection), or ``dropped``.
        vector_type: The type of the field, one of `VECTOR_TYPES`.
    """

    name: str
    dim: int
    metric: Metric
    storage: Storage
    vector_type: str = "FLOAT_VECTOR"

    @property
    def vector_bytes(self) -> int:
        """Bytes of a kept vector."""
        return VECTOR_TYPES[self.vector_type] * self.dim

    def companion(self, suffix: str) -> str:
        """The name of a companion field."""
        return f"{self.name}__{suffix}"


@dataclass(frozen=True)
class SearchPlan:
    """A search in the server's native terms.

    Args:
        field: The field that is searched.
        metric: Its native metric.
        queries: One native query for each of the user's.
        params: Native search parameters.
        candidates: The number of candidates (R).
        estimate_metric: The metric of the scores of `Lowering.estimate`, which says which of them are better.
        columns: Companion fields of each candidate for `Lowering.estimate`.
        state: Data of the queries for `Lowering.estimate`.
        rerank: The number of candidates to score exactly, unless the search says it; None for all.
        breadth: Name of the native parameter that must be at least the number of candidates, "" without one.
    """

    field: str
    metric: str
    queries: Sequence[NativeQuery]
    candidates: int
    estimate_metric: str
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    columns: tuple[str, ...] = ()
    state: Any = None
    rerank: int | None = None
    breadth: str = ""

    @property
    def native_params(self) -> dict[str, Any]:
        """The native search parameters for the plan's number of candidates."""
        if not self.breadth:
            return dict(self.params)
        return {**self.params, self.breadth: max(self.params.get(self.breadth, 0), self.candidates)}


@dataclass(frozen=True)
class Candidates:
    """The candidates of one query.

    Args:
        scores: float32 (n,): the native scores.
        columns: The companion fields that the plan asked for, each an array (n,), or uint8 (n, bytes) for binary
            vectors.
    """

    scores: F32
    columns: Mapping[str, npt.NDArray[Any]]


class Lowering(ABC):
    """An index type on one field, in one server's native terms.

    Args:
        field: The user's vector field.
        encoder: The encoder that the collection was created with.
        settings: The settings stored with the collection, those of `IndexType.choose` included.
    """

    def __init__(self, field: VectorField, encoder: Encoder, settings: Mapping[str, str]) -> None:
        self.field = field
        self.encoder = encoder
        self.settings = dict(settings)

    @property
    @abstractmethod
    def fields(self) -> tuple[FieldSpec, ...]:
        """The companion fields."""

    @property
    @abstractmethod
    def index(self) -> NativeIndex:
        """The native index that is searched; the settings are stored with it."""

    @abstractmethod
    def encode_rows(self, vectors: F32) -> dict[str, Column]:
        """Encode rows into the companion fields.

        Args:
            vectors: float32 (n, d), contiguous and finite, as `Encoder.check_vectors` returns them.

        Returns:
            Arrays of length n, uint8 (n, bytes) for binary vectors, CSR for sparse ones.
        """

    @property
    def output_size(self) -> str:
        """The most that a stored row can hold, in words; more of it means a higher recall."""
        return self.encoder.output_size

    @property
    def ranks_candidates(self) -> bool:
        """True if estimates rank the candidates better than the native index does."""
        return False

    @property
    def hint(self) -> str:
        """Advice for a better encoder, as a sentence; "" for none."""
        return ""

    def decode_rows(self, columns: Mapping[str, Column]) -> EncodedRows:
        """Decode companion fields to encoded rows: the inverse of `encode_rows`.

        Args:
            columns: Every companion field, as `encode_rows` returns them.

        Raises:
            UnsupportedError: If the index type works on a server only.
        """
        del columns
        raise UnsupportedError("The rows of this index type cannot be read back from Milvus.")

    @abstractmethod
    def plan_search(self, queries: F32, options: Mapping[str, Any], limit: int) -> SearchPlan:
        """Plan the native search for some queries.

        Args:
            queries: float32 (n, d), checked.
            options: Checked search options of the index type, each present.
            limit: The number of results per query, without the offset.
        """

    def estimate(self, plan: SearchPlan, query: int, candidates: Candidates) -> F32:
        """Score one query's candidates without exact vectors.

        The base returns the native scores as they are. The metric of the result is the plan's ``estimate_metric``.
        """
        del plan, query
        return candidates.scores


class IndexType(ABC):
    """A named recipe; users ask for it with ``index_type="..."``.

    Register it in the entry-point group ``alula.index_types``.
    """

    name: ClassVar[str]
    encoder_kind: ClassVar[str]
    summary: ClassVar[str]
    create_options: ClassVar[tuple[Option, ...]] = ()
    search_options: ClassVar[tuple[Option, ...]] = ()
    probes: ClassVar[tuple[Probe, ...]] = ()  # questions to a server whose answers `choose` needs
    local_options: ClassVar[tuple[Option, ...]] = ()  # search options of its index in this process
    oversample: ClassVar[int] = 10  # the default of the search option of this name, see `candidate_counts`
    ranks_without_vectors: ClassVar[bool] = False  # true: its estimates are worth searching by without kept vectors

    @property
    def all_search_options(self) -> tuple[Option, ...]:
        """The search options of this type and those common to all types."""
        return (*self.search_options, *COMMON_SEARCH_OPTIONS)

    @property
    def all_local_options(self) -> tuple[Option, ...]:
        """The search options of its index in this process and those common to all types."""
        return (*self.local_options, *COMMON_SEARCH_OPTIONS)

    def option_probes(self, options: Mapping[str, Any]) -> tuple[Probe, ...]:
        """Further questions to a server, whose answers `choose` needs for some options.

        They may take seconds, and are asked only then. The default has none.

        Args:
            options: Checked create options, each present.
        """
        del options
        return ()

    @abstractmethod
    def choose(self, capabilities: Capabilities, options: Mapping[str, Any]) -> dict[str, str]:
        """Choose the settings of the index type on one server.

        Args:
            capabilities: The server's capabilities, with the answers to `option_probes`.
            options: Checked create options, each present.

        Returns:
            The settings to store with the collection, flat strings.

        Raises:
            UnsupportedError: If the server lacks a capability; the message says what to do.
        """

    @abstractmethod
    def lowering(self, field: VectorField, encoder: Encoder, settings: Mapping[str, str]) -> Lowering:
        """The lowering of a field with the settings that `choose` returned."""

    def local(
        self,
        encoder: Encoder,
        metric: Metric,
        *,
        keep_vectors: bool,
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> LocalIndex:
        """Create an empty index of this type in this process.

        Args:
            encoder: The encoder of its rows and queries.
            metric: The user's metric.
            keep_vectors: True to hold the rows' vectors, for exact scores.
            settings: The settings of the collection whose rows it will hold; none for rows that are encoded here.

        Raises:
            UnsupportedError: If the type works on a server only, which is the default.
        """
        del encoder, metric, keep_vectors, settings
        raise UnsupportedError(f"The index type {self.name} cannot be held in this process; search it in Milvus.")

    def open_local(self, folder: Path, encoder: Encoder, *, settings: Mapping[str, str] = NO_SETTINGS) -> LocalIndex:
        """Open the folder of `LocalIndex.save` by memory map; settings as in `local`.

        Raises:
            DataError: If the folder holds no such index.
            UnsupportedError: As `local`.
        """
        del folder, encoder, settings
        raise UnsupportedError(f"The index type {self.name} cannot be held in this process; search it in Milvus.")


def choose_storage(keep_vectors: bool, capabilities: Capabilities) -> Storage:
    """Choose the place of the user's own vectors.

    Raises:
        UnsupportedError: If they are kept and the server has no place for them.
    """
    if not keep_vectors:
        return "dropped"
    if capabilities.several_vector_fields:
        return "field"
    if capabilities.array_field:
        return "column"
    raise UnsupportedError(
        f"{capabilities.server} has one vector field per collection and has no ARRAY fields, so the vectors cannot "
        "be kept beside the index; create the collection without them (keep_vectors=False)."
    )


def check_vector_type(vector_type: str, storage: Storage, capabilities: Capabilities) -> None:
    """Raise an error unless a server can keep vectors in a type.

    Raises:
        UsageError: If it is not one of `VECTOR_TYPES`, or the vectors are dropped.
        UnsupportedError: If the server has no such fields.
    """
    if vector_type not in VECTOR_TYPES:
        raise UsageError(f"vector_type is {vector_type!r}; choose {' or '.join(VECTOR_TYPES)}.")
    if vector_type == "FLOAT_VECTOR":
        return
    if storage == "dropped":
        raise UsageError(
            f'vector_type="{vector_type}" is the type of kept vectors, and the collection drops them; leave it out.'
        )
    if storage != "field" or not capabilities.half_vectors:
        raise UnsupportedError(
            f'{capabilities.server} has no vectors of half precision, so vector_type="{vector_type}" is not possible; '
            "leave it out."
        )


def vector_spec(field: VectorField) -> FieldSpec | None:
    """The field of the kept vectors; None if they are dropped."""
    if field.storage == "field":
        return FieldSpec(field.name, field.vector_type, field.vector_bytes, {"dim": field.dim, "mmap_enabled": True})
    if field.storage == "column":
        params = {"element_type": "FLOAT", "max_capacity": field.dim}
        return FieldSpec(field.name, "ARRAY", field.vector_bytes, params)
    return None


def vector_index(field: VectorField) -> NativeIndex | None:
    """The index of kept vectors; None if they have none.

    It is exact. Milvus builds no FLAT index and searches the field itself, so the parameters of the field say that it
    is memory-mapped, and costs disk and not RAM. Milvus 2.4 and later take an index with ``mmap.enabled`` for another
    one than the same index that exists.
    """
    if field.storage != "field":
        return None
    return NativeIndex(field.name, "FLAT", field.metric)
