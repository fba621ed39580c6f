"""Search the rows of a replica, scored in this process or by Milvus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alula.encoders.metric import better_is_larger
from alula.errors import UsageError
from alula.index_types import MAX_RESULTS, VectorField
from alula.kernels import TopK
from alula.milvus import Id
from alula.replica.replica_rows import ReplicaRows
from alula.replica.row_filter import Mask
from alula.search import RankedIds, Results, Searcher, SearchRequest
from alula.search.hits import to_results
from alula.search.ranking import all_ids, best_first, rank_in_stages, stage_depths
from alula.search.searcher import scored_exactly

F32 = npt.NDArray[np.float32]
DEFAULT_CANDIDATES = 1000  # of index types without such an option


@dataclass(frozen=True)
class LocalSearch:
    """A search in stages (`alula.search.ranking`).

    Args:
        request: The search, with options of the index in this process.
        field: The vector field.
        keeps_vectors: True if the index keeps the vectors of the rows.
    """

    request: SearchRequest
    field: VectorField
    keeps_vectors: bool

    @property
    def scored_by_milvus(self) -> bool:
        """True if the exact scores come from Milvus."""
        return self._exact(self._candidates) > 0 and not self.keeps_vectors

    @property
    def _candidates(self) -> int:
        return self.request.options.get("candidates") or DEFAULT_CANDIDATES

    def _exact(self, depth: int) -> int:
        return scored_exactly(self.request.rerank, max(self._candidates, depth), depth, self.field)

    @property
    def _depths(self) -> Sequence[int]:
        reranks = None if self.field.storage == "dropped" else self.request.rerank
        return stage_depths(min(self._candidates, reranks or self._candidates), self.request.wanted)

    def find(self, rows: ReplicaRows, valid: Mask | None) -> dict[int, TopK]:
        """The candidates or results of each stage, by its depth.

        Args:
            rows: The rows.
            valid: bool (positions,): only these rows may be found; None for all.
        """
        request = self.request
        found = {}
        for depth in self._depths:
            exact = self._exact(depth)
            count = exact if self.scored_by_milvus else min(depth, request.wanted)
            if not len(rows.index) or (valid is not None and not valid.any()):
                found[depth] = TopK.empty(len(request.queries), count)
                continue
            options = dict(request.options)
            if "candidates" in options:
                options["candidates"] = max(self._candidates, depth)
            rerank = 0 if self.scored_by_milvus else request.rerank and max(request.rerank, depth)
            found[depth] = rows.index.search(request.queries, count, options, rerank=rerank, valid=valid)
        return found

    def hits(self, rows: ReplicaRows, found: Mapping[int, TopK], searcher: Searcher | None) -> Results:
        """The page of results.

        Args:
            rows: The rows among which the candidates were found.
            found: As `find` returned.
            searcher: Scores candidates and reads fields that are not held; None if neither is needed.
        """
        request = self.request
        places: dict[Id, int] = {}

        def rank_stage(numbers: Sequence[int], depth: int) -> list[RankedIds]:
            ranked = []
            for number in numbers:
                positions, scores = found[depth].positions[number], found[depth].scores[number]
                positions, scores = positions[positions >= 0], scores[positions >= 0]
                one = RankedIds(rows.ids(positions), scores, self._exact(depth) > 0)
                places.update(zip(one.ids, positions.tolist(), strict=True))
                if self.scored_by_milvus and searcher and one.ids:
                    one = self._rescored(one, number, depth, searcher)
                ranked.append(one)
            return ranked

        ranked: Sequence[RankedIds] = rank_in_stages(
            rank_stage, len(request.queries), self._depths, lambda _, one: len(one.ids) >= request.wanted
        )
        ranked = [one.page(request.offset, request.limit) for one in ranked]
        held = rows.columns.schema.names
        missing = [name for name in request.output_fields if name not in held]
        columns: dict[str, Sequence[Any]] = {}
        if missing and searcher:
            # rows of a replica match the filter as of its last refresh
            ranked, read = searcher.read_fields(ranked, missing, replace(request.scope, filter=""))
            columns |= {name: read.values(name) for name in missing} if read else {}
        positions = pa.array([places[id_] for id_ in all_ids(ranked)], pa.int64())
        columns |= (
            rows.columns.select([name for name in held if name in request.output_fields]).take(positions).to_pydict()
        )
        return to_results(ranked, {name: columns[name] for name in request.output_fields if name in columns})

    def _rescored(self, ranked: RankedIds, number: int, depth: int, searcher: Searcher) -> RankedIds:
        """The candidates of one stage for one query by exact scores from Milvus."""
        keep = min(depth, self.request.wanted)
        ids, scores = searcher.score_exactly(self.request.queries[number], ranked.ids, self.request.scope, keep)
        return best_first(ids, scores, keep, larger=better_is_larger(self.field.metric), exact=True)

    def check_milvus_can_score(self) -> None:
        """Raise a `UsageError` if Milvus cannot score that many candidates."""
        exact = self._exact(self._depths[-1])
        if exact > MAX_RESULTS:
            raise UsageError(f"{exact} candidates are to be scored exactly, and Milvus scores {MAX_RESULTS} at most.")
