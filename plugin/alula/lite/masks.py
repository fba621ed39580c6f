"""Cache the valid rows of segments in Milvus Lite 3, which checks them per search.

A search in Milvus Lite 3 checks in Python that each row is the newest of its key and not deleted: half a microsecond
per row, whatever the index. For the rows of segments the result depends on the searched segments, which never change,
and on the flushed deletions, so it is cached with both. Rows that are not flushed are checked by every search, as
before.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from alula.index_types.local import F32, Mask

SCOPES = 8  # choices of partitions that are cached for a collection


@dataclass(frozen=True)
class Validity:
    """The valid rows of some segments, by flushed rows and deletions.

    Args:
        segments: The segments.
        deleted: The sequence number of the last deletion of each deleted key.
        masks: bool (rows,) for each segment.
    """

    segments: Sequence[Any]
    deleted: Mapping[Any, int]
    masks: Sequence[Mask]

    @classmethod
    def of(cls, segments: Sequence[Any], deleted: Mapping[Any, int]) -> Validity:
        """Compute it: valid is the newest row of a key without a later deletion."""
        newest: dict[Any, int] = {}
        for segment in segments:
            for key, sequence in zip(segment.pks, segment.seqs.tolist(), strict=True):
                newest[key] = max(sequence, newest.get(key, 0))
        masks = []
        for segment in segments:
            rows = zip(segment.pks, segment.seqs.tolist(), strict=True)
            valid = (sequence == newest[key] and deleted.get(key, 0) <= sequence for key, sequence in rows)
            mask = np.fromiter(valid, np.bool_, len(segment.pks))
            mask.setflags(write=False)  # every search shares it
            masks.append(mask)
        return cls(segments, deleted, masks)

    def is_of(self, segments: Sequence[Any], deleted: Mapping[Any, int]) -> bool:
        """True for the same segment objects and equal deletions."""
        same = len(segments) == len(self.segments) and all(map(lambda a, b: a is b, segments, self.segments))
        return same and self.deleted == deleted

    def without(self, unflushed: Iterable[tuple[Any, int]]) -> list[Mask]:
        """The masks without the rows that unflushed rows or deletions replace.

        Args:
            unflushed: The key and the sequence number of each unflushed row or deletion.
        """
        masks = list(self.masks)
        for key, sequence in unflushed:
            for number, segment in enumerate(self.segments):
                row = segment.pk_to_row.get(key)
                if row is not None and segment.seqs[row] < sequence and masks[number][row]:
                    if masks[number] is self.masks[number]:
                        masks[number] = masks[number].copy()
                    masks[number][row] = False
        return masks


class Validities:
    """A cache of `Validity`, until a flush replaces the unflushed rows' object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: WeakKeyDictionary[Any, dict[Any, Validity]] = WeakKeyDictionary()

    def get(self, memtable: Any, scope: Any, segments: Sequence[Any], deleted: Mapping[Any, int]) -> Validity:
        """The validity of some segments under some deletions, cached or computed.

        Args:
            memtable: Milvus Lite's unflushed rows, which a flush replaces by another object.
            scope: The searched partitions.
            segments: Their segments.
            deleted: See `Validity`.
        """
        with self._lock:
            known = self._known.setdefault(memtable, {})
            found = known.get(scope)
        if found is None or not found.is_of(segments, deleted):
            found = Validity.of(segments, deleted)
            with self._lock:
                known.pop(scope, None)
                while len(known) >= SCOPES:
                    known.pop(next(iter(known)))
                known[scope] = found
        return found


@dataclass(frozen=True)
class SearchedRows:
    """Rows that are searched together: those of a segment, or the unflushed ones.

    Args:
        mask: bool (rows,): the rows that can be found.
        index: A vector index of Milvus Lite.
        keys: Their primary keys.
        record: The fields of a row.
    """

    mask: Mask
    index: Any
    keys: Sequence[Any]
    record: Callable[[int], dict[str, Any]]


class Search:
    """One search, with the arguments of Lite's ``execute_search_with_index``."""

    def __init__(
        self,
        *,
        query_vectors: F32,
        segments: Iterable[Any],
        memtable: Any,
        delta_index: Any,
        top_k: int,
        metric_type: str,
        pk_field: str,
        vector_field: str,
        partition_names: Sequence[str] | None,
        compiled_filter: Any,
        output_fields: Sequence[str] | None,
        indexed_filter_plan: Any,
        project_record_fn: Callable[[dict[str, Any]], dict[str, Any]],
        search_params: Mapping[str, Any] | None,
    ) -> None:
        del output_fields  # project_record_fn knows them
        self.queries, self.limit, self.params = query_vectors, top_k, search_params
        self.metric, self.key, self.field = metric_type, pk_field, vector_field
        self.partitions = frozenset(partition_names) if partition_names else None
        self.filter, self.filter_plan = compiled_filter, indexed_filter_plan
        self.project = project_record_fn
        self.memtable, self.deleted = memtable, delta_index.snapshot
        self.segments = [
            segment
            for segment in segments
            if segment.num_rows and (self.partitions is None or segment.partition in self.partitions)
        ]

    @property
    def is_known(self) -> bool:
        """True if no segment contains a key twice; flushing and compaction ensure that."""
        return all(len(segment.pk_to_row) == len(segment.pks) for segment in self.segments)

    def sources(self, validities: Validities) -> list[SearchedRows]:
        """The segments, followed by the unflushed rows."""
        keys, sequences, vectors, places, table = self.memtable.to_search_snapshot(
            vector_field=self.field,
            partition_names=None if self.partitions is None else sorted(self.partitions),
            include_table=self.filter is not None,
        )
        unflushed = list(zip(keys, sequences.tolist(), strict=True))
        removed = {key: sequence for key, (sequence, _) in self.memtable.delete_index_snapshot().items()}
        validity = validities.get(self.memtable, self.partitions, self.segments, self.deleted)
        masks = validity.without([*unflushed, *removed.items()])
        found = [self._segment(segment, mask) for segment, mask in zip(self.segments, masks, strict=True)]
        if unflushed:
            valid = [
                max(self.deleted.get(key, 0), removed.get(key, 0), self._newest(key)) <= sequence
                for key, sequence in unflushed
            ]
            mask = np.array(valid)
            if self.filter is not None:
                mask &= _lite("search.filter").evaluate_mask(self.filter, table).astype(np.bool_)
            found.append(
                SearchedRows(mask, self._exact(vectors), keys, lambda row: self.memtable.materialize_row(*places[row]))
            )
        return found

    def _segment(self, segment: Any, mask: Mask) -> SearchedRows:
        vectors, present = segment.vector_data(self.field)
        if self.filter is not None:
            evaluate = _lite("search.indexed_filter").evaluate_segment_filter
            mask = mask & evaluate(segment, self.filter, self.filter_plan).astype(np.bool_)
        if present is not None:
            mask = mask & present
        index = segment.indexes.get(self.field) or self._exact(vectors)
        return SearchedRows(mask, index, segment.pks, segment.row_to_dict)

    def _newest(self, key: Any) -> int:
        rows = ((segment, segment.pk_to_row.get(key)) for segment in self.segments)
        return max((int(segment.seqs[row]) for segment, row in rows if row is not None), default=0)

    def _exact(self, vectors: F32) -> Any:
        return _lite("index.brute_force").BruteForceIndex.build(vectors, self.metric)

    def run(self, sources: Sequence[SearchedRows]) -> list[list[dict[str, Any]]]:
        """The hits of each query, nearest first."""
        nearest: list[list[tuple[float, int, int]]] = [[] for _ in self.queries]
        for number, source in enumerate(sources):
            if not source.mask.any():
                continue
            mask = None if source.mask.all() else source.mask
            rows, distances = source.index.search(self.queries, self.limit, valid_mask=mask, params=self.params)
            for query, hits in enumerate(nearest):
                found = zip(distances[query].tolist(), rows[query].tolist(), strict=True)
                hits += [(distance, number, row) for distance, row in found if row >= 0]
        return [[self._hit(sources, *hit) for hit in sorted(hits)[: self.limit]] for hits in nearest]

    def _hit(self, sources: Sequence[SearchedRows], distance: float, number: int, row: int) -> dict[str, Any]:
        record = sources[number].record(row)
        key = record[self.key] if self.key in record else sources[number].keys[row]
        return {"id": key, "distance": distance, "entity": self.project(record)}


def with_known_masks(original: Callable[..., Any]) -> Callable[..., Any]:
    """Milvus Lite's ``execute_search_with_index`` with cached masks of segments."""
    validities = Validities()

    def execute_search_with_index(**given: Any) -> Any:
        search = Search(**given)
        return search.run(search.sources(validities)) if search.is_known else original(**given)

    return execute_search_with_index


def _lite(module: str) -> Any:
    return importlib.import_module(f"milvus_lite.{module}")
