"""`Replica`: search a Milvus collection's codes in this process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alula.catalog.binding import lowering_of
from alula.catalog.description import describe
from alula.collection import Collection
from alula.encoders import Encoder, load_encoder
from alula.errors import UsageError
from alula.index_types import Lowering, index_type
from alula.ingest.monitor import Status, StatusCallback
from alula.milvus import any_of, literal
from alula.milvus.reading import count_rows, keys_of
from alula.replica import snapshot
from alula.replica.block_reader import BlockReader, Page
from alula.replica.local_search import LocalSearch
from alula.replica.lock import ReadWriteLock
from alula.replica.refresh import Difference, Refreshed, compare, really_gone
from alula.replica.replica_rows import I64, ReplicaRows
from alula.replica.row_filter import FilterNotSupported, Predicate, parse_filter
from alula.replica.snapshot import Origin
from alula.search import Results, SearchRequest

_MAX_WARNINGS = 20  # for different reasons, per replica

_log = logging.getLogger(__name__)


class Replica:
    """The codes of an Alula collection, searched in this process.

    Milvus stays the source of truth. A replica reads the companion fields (a few dozen bytes per row), and the vectors
    only on request. Later writes to the collection are seen after the next `refresh`. Several threads may search, also
    while one refreshes. Creating or loading one compiles the loops of searches, or loads them from the
    cache (`alula.kernels.warm_up`).

    Args:
        collection: The collection, opened with its encoder.
        columns: Scalar fields to store, for filters and output fields that then need no server.
        vectors: True to store the vectors too (4 bytes per dimension and row): exact scores then need no server.
        progress: Receives the number of rows read.

    Raises:
        UsageError: If there is no such field, or the vectors were dropped.
        UnsupportedError: If the index type has no index outside Milvus.
        ServerError: If Milvus fails.
    """

    def __init__(
        self,
        collection: Collection,
        *,
        columns: Sequence[str] = (),
        vectors: bool = False,
        progress: StatusCallback | None = None,
    ) -> None:
        lowering = collection.lowering
        key = collection.primary_key.name
        collection.check_output_fields(columns)
        own = {lowering.field.name, *(spec.name for spec in lowering.fields)}
        for name in own.intersection(columns):
            raise UsageError(f"{name!r} is no scalar field, and columns= takes scalar fields; leave it out.")
        storable = [field.name for field in (collection.primary_key, *collection.fields) if field.plain]
        for name in columns:
            if name not in storable:
                raise UsageError(
                    f"{name!r} cannot be stored in a replica, which takes fields of one number, boolean or text per "
                    f"row: {', '.join(storable)}. Searches read it from the server."
                )
        if vectors and lowering.field.storage == "dropped":
            raise UsageError(
                f"The vectors of {collection.name!r} were dropped, so there are none to store; leave vectors=True out."
            )
        about = describe(collection.server, collection.name, count=False)
        origin = Origin(
            collection.name,
            collection.server.uri,
            about.identity,
            about.settings,
            collection.primary_key,
            collection.fields,
            collection.defaults,
        )
        self._prepare(origin, lowering, collection)
        named = [name for name in dict.fromkeys(columns) if name != key]
        self._rows = self._read_all(BlockReader(collection, named, vectors=vectors), _Report(collection, progress))
        if count_rows(collection.server, collection.name) != len(self):
            self.refresh(progress=progress)  # rows were written concurrently, or the server left some out

    def _prepare(self, origin: Origin, lowering: Lowering, collection: Collection | None) -> None:
        self._origin, self._lowering, self._collection = origin, lowering, collection
        self._kind = index_type(lowering.settings["type"])
        self._lock, self._refreshing = ReadWriteLock(), threading.Lock()
        self._warned: set[str] = set()

    @classmethod
    def load(
        cls, folder: str | Path, collection: Collection | None = None, *, encoder: Encoder | str | Path | None = None
    ) -> Replica:
        """Open the folder of `save` by memory map; searches read the parts they need.

        Args:
            folder: The folder.
            collection: The collection that it is a replica of. Without it the replica cannot use Milvus: filters and
                output fields need stored columns, exact scores need stored vectors, and `refresh` fails.
            encoder: The collection's encoder, or its file; needed only without the collection.

        Raises:
            DataError: If the folder contains no whole replica.
            EncoderError: If it was made with another encoder.
            UsageError: If it is a replica of another collection, or of one that was dropped and created again. Milvus
                Lite does not show the latter; a refresh then finds all the differences.
        """
        folder = Path(folder)
        origin = snapshot.read_origin(folder)
        what = f"The replica in {folder}"
        if collection is not None:
            encoder = collection.lowering.encoder
        if encoder is None:
            raise UsageError(f"{what} needs the encoder of its collection to search; give encoder= or the collection.")
        encoder = load_encoder(encoder) if isinstance(encoder, str | Path) else encoder
        self = cls.__new__(cls)
        self._prepare(origin, lowering_of(what, origin.settings, encoder), collection)
        if collection is not None:
            self._check_same(collection)
        self._rows = snapshot.open_rows(folder, self._kind, encoder, self._lowering.settings)
        return self

    def save(self, folder: str | Path) -> None:
        """Write the replica into a folder, for `load`; an existing folder is replaced.

        The folder appears when it is whole, so that other processes never open half of one.
        """
        with self._lock.reading():
            snapshot.save(Path(folder), replace(self._origin, defaults=self.defaults), self._rows)

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The collection's default search options; without it, those as of `save`."""
        return self._origin.defaults if self._collection is None else self._collection.defaults

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        settings, schema = self._origin.settings, self._rows.columns.schema
        held = [*schema.names, *(["the vectors"] if self._rows.index.keeps_vectors else [])]
        return (
            f"<Replica of {self._origin.collection!r} ({settings['type']}, {settings['metric']}): {len(self):,} rows, "
            f"{sum(self.nbytes.values()) / 1e6:,.1f} MB with {', '.join(held)}>"
        )

    @property
    def nbytes(self) -> Mapping[str, int]:
        """Bytes of memory by content, deleted rows included; `load` maps files."""
        return self._rows.nbytes

    def search(
        self,
        queries: npt.ArrayLike | Sequence[str],
        *,
        limit: int = 10,
        offset: int = 0,
        filter: str = "",
        output_fields: Sequence[str] = (),
        partitions: Sequence[str] = (),
        consistency_level: str | None = None,
        rerank: int | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Results:
        """The best rows for each query, as `Collection.search` finds them.

        Candidates are found in this process. Milvus is used for:

        - exact scores of the candidates, unless the vectors are stored here. ``rerank=0`` leaves them out, which is
          the fastest way to search;
        - output fields that are not stored here; rows that were deleted before these are read are left out, so that
          there may be fewer than `limit`;
        - the whole search, with a warning in the log, if its filter names a column that is not stored here or contains
          syntax that `alula.replica.row_filter` does not support. `filter_is_local` checks a filter in advance.

        Candidates may differ from Milvus's where they are fewer than the rows: DRQ's are the nearest by code distance,
        so better than those that the layout ``hamming`` finds by sign bits; FLOPS_SPARSE's are chosen by rounded inner
        products if the vectors are stored here. Estimates (``rerank=0``) for COSINE are cosines also where the
        collection's layout ``adc`` gives 1 - distance / 2.

        Args:
            queries: As `Collection.search`.
            limit: Results per query.
            offset: Results to leave out at the start.
            filter: A scalar filter in Milvus's expression language.
            output_fields: Fields to return with each hit.
            partitions: Not possible here.
            consistency_level: Of the calls to Milvus.
            rerank: Candidates to score by their exact vectors: all by default, 0 for none.
            timeout: Seconds for one call to the server.
            options: Search options of the index type, and those of its index in this process (``probes`` of DRQ); those
                of a native index (``nprobe``) change nothing. The collection's `defaults` hold for those that are not
                given, and for `rerank`.

        Returns:
            One list of hits per query, best first.

        Raises:
            DataError: If the queries are not what the encoder takes.
            UsageError: If an option, the limit or the filter is wrong, or the search needs the collection and has none.
            ServerError: If a call to Milvus fails.
        """
        if partitions:
            raise UsageError(
                "A replica does not know which partition a row is in; search partitions with Collection.search, or "
                "filter by a column that distinguishes them."
            )
        self._check_fields(output_fields)
        request = SearchRequest.build(
            self._lowering,
            self._kind,
            queries,
            limit=limit,
            offset=offset,
            filter=filter,
            output_fields=output_fields,
            consistency_level=consistency_level,
            rerank=rerank,
            timeout=timeout,
            options=options,
            defaults=self.defaults,
            local=True,
        )
        try:
            predicate = self._predicate(filter)
        except FilterNotSupported as reason:
            searcher = self._need_collection(f"The filter {filter!r} is for Milvus: {reason}").searcher
            self._warn(filter, str(reason))
            native = {option.name: request.options[option.name] for option in self._kind.search_options}
            return searcher.search(replace(request, options=native))
        local = LocalSearch(request, self._lowering.field, self._rows.index.keeps_vectors)
        if local.scored_by_milvus:
            self._need_collection("Exact scores need the vectors, which are not held (search with rerank=0)")
            local.check_milvus_can_score()
        with self._lock.reading():
            rows = self._rows
            found = local.find(rows, rows.mask(filter, predicate) if predicate else None)
        return local.hits(rows, found, self._collection.searcher if self._collection else None)

    def filter_is_local(self, filter: str) -> bool:
        """True if a search with this filter runs in this process, and not in Milvus."""
        try:
            self._predicate(filter)
        except FilterNotSupported:
            return False
        return True

    def refresh(self, *, growing_keys: bool = False, progress: StatusCallback | None = None) -> Refreshed:
        """Apply the inserts, changes and deletions since the collection was read.

        Milvus publishes no changes, so all rows are read again, as when the replica was opened, and compared by their
        keys and by a fingerprint of the rest. Concurrent searches see all of the changes or none. If a refresh fails,
        the replica stays as it was.

        A deleted or changed row leaves its old codes in memory. When they are half of all, the index is rebuilt.

        Args:
            growing_keys: True if every new row has a greater key than the rows before it, and rows do not change: read
                only the rows after the greatest key of the replica. Rows are counted too, and if some were deleted or
                inserted in between, all are read after all; only a *changed* row is missed.
            progress: Receives the number of rows read.

        Raises:
            UsageError: If the collection is gone, or was dropped and created again; or the replica has no collection.
            ServerError: If Milvus fails.
        """
        collection = self._need_collection("A replica is refreshed from its collection")
        began = time.perf_counter()
        with self._refreshing:
            self._check_same(collection)
            reader = BlockReader(
                collection, self._rows.columns.schema.names[1:], vectors=self._rows.index.keeps_vectors
            )
            report = _Report(collection, progress)
            found = self._behind(reader, report) if growing_keys else None
            found = found or compare(self._rows, report.watch(reader.pages()))
            gone = self._gone(collection, found.missing)
            self._take_over(reader, found, gone, report)
        seconds = time.perf_counter() - began
        return Refreshed(found.added, len(found.changed), len(gone), report.read, seconds)

    def _behind(self, reader: BlockReader, report: _Report) -> Difference | None:
        """The rows after the greatest key; None if the number of other rows differs."""
        order = self._rows.in_key_order()
        if not len(order):
            return None
        greatest = self._rows.keys[int(order[-1])].as_py()
        collection, key = report.collection, report.collection.primary_key.name
        before = count_rows(collection.server, collection.name, f"{key} <= {literal(greatest)}")
        if before != len(order):
            return None
        pages = list(report.watch(reader.pages(after=greatest)))
        return Difference(fresh=pages)

    def _gone(self, collection: Collection, missing: Sequence[int]) -> I64:
        key = collection.primary_key

        def still_there(keys: Sequence[Any]) -> Iterator[Any]:
            return keys_of(collection.server, collection.name, key, any_of(key.name, keys))

        return really_gone(self._rows, missing, still_there)

    def _take_over(self, reader: BlockReader, found: Difference, gone: I64, report: _Report) -> None:
        rows = self._rows
        old = np.concatenate([np.array(found.changed, np.int64), gone])
        alive = len(rows) - len(old)
        total = len(rows.index) + found.added + len(found.changed)
        if alive + found.added + len(found.changed) < total / 2:
            self._rows = self._read_all(reader, report)
        elif found.fresh or len(old):
            blocks = list(reader.blocks(found.fresh))
            new = rows.followed_by([(block.columns, block.prints) for block in blocks])
            with self._lock.writing():
                for block in blocks:
                    rows.index.add(*block.encoded)
                rows.index.delete(old)
                self._rows = new

    def _read_all(self, reader: BlockReader, report: _Report) -> ReplicaRows:
        keep = reader.vectors
        lowering = self._lowering
        metric, settings = lowering.field.metric, lowering.settings
        index = self._kind.local(lowering.encoder, metric, keep_vectors=keep, settings=settings)
        taken = []
        for block in reader.blocks(report.watch(reader.pages())):
            index.add(*block.encoded)
            taken.append((block.columns, block.prints))  # the index has the rest
        none = ReplicaRows(index, pa.RecordBatch.from_pylist([], schema=reader.held), np.empty(0, np.uint64))
        return none.followed_by(taken)

    def _check_same(self, collection: Collection) -> None:
        about, origin = describe(collection.server, collection.name, count=False), self._origin
        if dict(about.settings) != dict(origin.settings) or about.identity != origin.identity:
            raise UsageError(
                f"The collection {collection.name!r} at {collection.server.uri} is not the one that was read: it was "
                "dropped and created again, or is another one; open a new replica of it."
            )

    def _check_fields(self, names: Sequence[str]) -> None:
        others = [name for name in names if name not in self._rows.columns.schema.names]
        if others:
            self._need_collection(f"The field {others[0]!r} is not held and must be fetched").check_output_fields(names)

    def _predicate(self, filter: str | None) -> Predicate | None:
        """The predicate of a filter; None for a blank one."""
        return parse_filter(filter, self._rows.columns.schema) if filter and filter.strip() else None

    def _warn(self, filter: str, reason: str) -> None:
        if reason not in self._warned and len(self._warned) < _MAX_WARNINGS:
            self._warned.add(reason)
            _log.warning("Milvus searches %r by itself for the filter %r: %s.", self._origin.collection, filter, reason)

    def _need_collection(self, why: str) -> Collection:
        """The collection, or a `UsageError` that gives the reason why it is needed."""
        if self._collection is None:
            raise UsageError(f"{why}, and this replica was loaded without its collection; give Replica.load one.")
        return self._collection


class _Report:
    """Counts the rows that are read, and reports them."""

    def __init__(self, collection: Collection, progress: StatusCallback | None) -> None:
        self.collection = collection
        self.read = 0
        self._progress = progress
        self._status = Status("reading", collection.count() if progress else None)

    def watch(self, pages: Iterable[Page]) -> Iterator[Page]:
        """Pass pages on and count their rows."""
        for page in pages:
            self.read += len(page.prints)
            self._status.read = self.read
            if self._progress:
                self._progress(self._status)
            yield page
