"""The contract of an index type: its fields, native index, searches and ranking.

Everything here is plain data on numpy and scipy. Nothing knows pymilvus, so the same index type serves the Python
client, the bulk writer and the gateway.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from alula.encoders import Encoder, Metric, NativeQuery
from alula.errors import UnsupportedError, UsageError
from alula.index_types.capabilities import Capabilities, Probe
from alula.index_types.native import FieldSpec, NativeIndex

if TYPE_CHECKING:
    from alula.index_types.local import EncodedRows, LocalIndex

F32 = npt.NDArray[np.float32]
Column: TypeAlias = "npt.NDArray[Any] | sp.csr_array"
Storage = Literal["field", "column", "dropped"]

MAX_RESULTS = 16384  # Milvus: "top k should be in range [1, 16384]"


@dataclass(frozen=True)
class Sweep:
    """Values of a search option that an evaluation tries.

    Args:
        values: (encoder, the collection's stored settings) -> the values; empty where they change nothing.
        combine: ``alone``: each value with all candidates ranked exactly. ``estimates``: each value without exact
            scores, because it changes the estimate. ``all``: each value with every other setting.
    """

    values: Callable[[Encoder, Mapping[str, Any]], Sequence[int]]
    combine: Literal["alone", "estimates", "all"] = "alone"


@dataclass(frozen=True)
class Option:
    """One parameter of an index type, for creating or for searching a collection.

    Args:
        name: Its name in Python; the command line spells it ``--name`` with dashes.
        value_type: ``int`` or ``str``.
        help: One sentence for ``--help``.
        default: The value when it is not given; None when the index type decides.
        minimum: Least value of an ``int``.
        choices: Allowed values of a ``str``.
        sweep: For search options: the values that an evaluation tries beside the default, if any.
    """

    name: str
    value_type: type[int] | type[str]
    help: str
    default: int | str | None = None
    minimum: int = 1
    choices: tuple[str, ...] = ()
    sweep: Sweep | None = None

    def check(self, value: Any) -> Any:
        """The value, converted.

        Raises:
            UsageError: If it is not of the type, under the minimum or not a choice.
        """
        if value is None:
            return self.default
        if self.value_type is int:
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise UsageError(f"{self.name} is {value!r}, and a whole number is needed.")
            if value < self.minimum:
                raise UsageError(f"{self.name} is {value}, and must be at least {self.minimum}.")
            return int(value)
        if self.choices and value not in self.choices:
            raise UsageError(f"{self.name} is {value!r}; choose one of {', '.join(self.choices)}.")
        return str(value)


# Search options of every index type: Alula re-ranks by exact vectors, whichever type found the candidates.
COMMON_SEARCH_OPTIONS = (
    Option("rerank", int, "Candidates to score by their exact vectors: all by default, 0 for none.", minimum=0),
)


@dataclass(frozen=True)
class VectorField:
    """The user's vector field.

    Args:
        name: The field's name.
        dim: Its dimension d.
        metric: The user's metric.
        storage: Where the vectors themselves are: a FLOAT_VECTOR ``field``, an ARRAY ``column`` (servers with one
            vector field per collection), or ``dropped``.
    """

    name: str
    dim: int
    metric: Metric
    storage: Storage

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
    """

    field: str
    metric: str
    queries: Sequence[NativeQuery]
    candidates: int
    estimate_metric: str
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    columns: tuple[str, ...] = ()
    state: Any = None


@dataclass(frozen=True)
class Candidates:
    """The candidates of one query.

    Args:
        scores: float32 (n,): the native scores.
        columns: The companion fields that the plan asked for, each an array (n,).
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
            limit: The number of results that the user needs, offset included.
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

    @property
    def all_search_options(self) -> tuple[Option, ...]:
        """The search options of this type and those common to all types."""
        return (*self.search_options, *COMMON_SEARCH_OPTIONS)

    @property
    def all_local_options(self) -> tuple[Option, ...]:
        """The search options of its index in this process and those common to all types."""
        return (*self.local_options, *COMMON_SEARCH_OPTIONS)

    @abstractmethod
    def choose(self, capabilities: Capabilities, options: Mapping[str, Any]) -> dict[str, str]:
        """Choose the settings of the index type on one server.

        Args:
            capabilities: The server's capabilities.
            options: Checked create options, each present.

        Returns:
            The settings to store with the collection, flat strings.

        Raises:
            UnsupportedError: If the server lacks a capability; the message says what to do.
        """

    @abstractmethod
    def lowering(self, field: VectorField, encoder: Encoder, settings: Mapping[str, str]) -> Lowering:
        """The lowering of a field with the settings that `choose` returned."""

    def local(self, encoder: Encoder, metric: Metric, *, keep_vectors: bool) -> LocalIndex:
        """Create an empty index of this type in this process.

        Args:
            encoder: The encoder of its rows and queries.
            metric: The user's metric.
            keep_vectors: True to hold the rows' vectors, for exact scores.

        Raises:
            UnsupportedError: If the type works on a server only, which is the default.
        """
        del encoder, metric, keep_vectors
        raise UnsupportedError(f"The index type {self.name} cannot be held in this process; search it in Milvus.")

    def open_local(self, folder: Path, encoder: Encoder) -> LocalIndex:
        """Open the folder of `LocalIndex.save` by memory map.

        Raises:
            DataError: If the folder holds no such index.
            UnsupportedError: As `local`.
        """
        del folder, encoder
        raise UnsupportedError(f"The index type {self.name} cannot be held in this process; search it in Milvus.")


def check_options(declared: Sequence[Option], given: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Check given options and fill in the defaults of the others.

    Raises:
        UsageError: If an option is unknown or its value wrong.
    """
    unknown = sorted(set(given) - {option.name for option in declared})
    if unknown:
        known = ", ".join(option.name for option in declared) or "none"
        raise UsageError(f"{owner} has no option {', '.join(unknown)}; it has: {known}.")
    return {option.name: option.check(given.get(option.name)) for option in declared}


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


def vector_spec(field: VectorField) -> FieldSpec | None:
    """The field of the kept vectors; None if they are dropped."""
    if field.storage == "field":
        return FieldSpec(field.name, "FLOAT_VECTOR", 4 * field.dim, {"dim": field.dim, "mmap_enabled": True})
    if field.storage == "column":
        params = {"element_type": "FLOAT", "max_capacity": field.dim}
        return FieldSpec(field.name, "ARRAY", 4 * field.dim, params)
    return None


def vector_index(field: VectorField) -> NativeIndex | None:
    """The index of kept vectors; None if they have none.

    It is exact, and memory-mapped by servers that can, so that it costs disk and not RAM.
    """
    if field.storage != "field":
        return None
    return NativeIndex(field.name, "FLAT", field.metric, {"mmap.enabled": "true"})
