"""The request behind every search, checked once for all interfaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.encoders.queries import query_vectors
from alula.errors import UsageError
from alula.index_types import MAX_RESULTS, IndexType, Lowering, VectorField, candidate_counts, check_options
from alula.milvus import Scope

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SearchRequest:
    """A search that was checked; `build` makes one.

    Args:
        queries: float32 (n, d).
        limit: Results per query.
        offset: Results to leave out at the start.
        output_fields: Fields to return with each result.
        rerank: Candidates to score by their exact vectors, 0 for none; by default what the options say.
        options: Search options of the index type, each present.
        scope: Filter, partitions, consistency level and timeout.
    """

    queries: F32
    limit: int = 10
    offset: int = 0
    output_fields: tuple[str, ...] = ()
    rerank: int | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scope: Scope = dataclasses.field(default_factory=Scope)

    @property
    def wanted(self) -> int:
        """Results per query to rank, `offset` included."""
        return self.limit + self.offset

    @classmethod
    def build(
        cls,
        lowering: Lowering,
        index_type: IndexType,
        queries: npt.ArrayLike | Sequence[str],
        *,
        limit: int = 10,
        offset: int = 0,
        filter: str | None = "",
        output_fields: Sequence[str] = (),
        partitions: Sequence[str] = (),
        consistency_level: str | None = None,
        rerank: int | None = None,
        timeout: float | None = None,
        options: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        local: bool = False,
    ) -> SearchRequest:
        """Check a search.

        Args:
            lowering: The collection's lowering.
            index_type: Its index type.
            queries: As `alula.Collection.search`.
            limit: Results per query.
            offset: Results to leave out at the start.
            filter: A scalar filter in Milvus's expression language; blanks are no filter.
            output_fields: Fields to return with each result.
            partitions: Partitions to search; all by default.
            consistency_level: As in Milvus; the collection's own by default.
            rerank: Candidates to score by their exact vectors, 0 for none; by default what the options say.
            timeout: Seconds for one call to the server.
            options: Search options of the index type.
            defaults: The collection's default options, where `options` does not give them.
            local: True to take the options of the index in this process (`IndexType.local_options`).

        Raises:
            DataError: If the encoder does not take the queries.
            UsageError: If an option, the limit or the offset is wrong.
        """
        vectors = query_vectors(lowering.encoder, queries)
        declared = index_type.all_local_options if local else index_type.all_search_options
        given = {**(defaults or {}), **(options or {}), **({} if rerank is None else {"rerank": rerank})}
        checked = check_options(declared, given, index_type.name)
        check_limit(limit, offset)
        rerank = checked.pop("rerank")
        check_rerank(rerank, lowering.field)
        if local and "oversample" in checked:  # an index in this process takes numbers
            checked["candidates"], exact = candidate_counts(checked, limit, oversample=index_type.oversample)
            rerank = exact if rerank is None and lowering.field.storage != "dropped" else rerank
        scope = Scope(filter if filter and filter.strip() else "", partitions, consistency_level, timeout)
        return cls(vectors, limit, offset, tuple(output_fields), rerank, checked, scope)


def check_limit(limit: int, offset: int, *, most: int = MAX_RESULTS) -> None:
    """Raise a `UsageError` if Milvus cannot return that many results."""
    for name, number in (("limit", limit), ("offset", offset)):
        if not isinstance(number, int | np.integer):
            raise UsageError(f"{name} is {number!r}, and must be a whole number.")
    if limit < 1:
        raise UsageError(f"limit is {limit}, and must be at least 1.")
    if offset < 0:
        raise UsageError(f"offset is {offset}, and must be at least 0.")
    if limit + offset > most:
        raise UsageError(f"limit plus offset is {limit + offset}, and Milvus returns at most {most} per query.")


def check_rerank(rerank: int | None, field: VectorField) -> None:
    """Raise a `UsageError` for exact scores in a collection without vectors."""
    if rerank and field.storage == "dropped":
        raise UsageError("The vectors of this collection were dropped, so nothing can be re-ranked exactly.")
