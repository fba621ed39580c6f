"""The Python face of a collection: create, open, load, search, delete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alula.catalog.collection_spec import CollectionSpec, open_spec
from alula.catalog.create import DEFAULT_FIELD, DEFAULT_KEY, create, design
from alula.catalog.description import Description, connected, describe, load_and_count
from alula.catalog.search_defaults import write_defaults
from alula.encoders import Encoder
from alula.errors import UsageError
from alula.index_types import MAX_RESULTS, check_options
from alula.ingest.load import LoadReport, load
from alula.ingest.target import Target
from alula.milvus import ClientCalls, Id, Scope, Server, delete_rows, milvus_errors
from alula.search import Hits, Results, Searcher, SearchRequest, check_limit, check_rerank
from alula.sources import ArraySource, Source
from alula.sources.encoder_inputs import open_rows


class Collection:
    """A Milvus collection with one of Alula's index types on a vector field.

    Use `create` or `open`; both take a connected `Server` or an address for `alula.connect`.

    Attributes:
        defaults: Search options for searches that do not give them, ``rerank`` included.
        searcher: Searches the collection for vectors.
    """

    def __init__(self, spec: CollectionSpec) -> None:
        self.spec = spec
        self.server, self.name = spec.server, spec.name
        self.primary_key, self.fields = spec.primary_key, spec.fields
        self.lowering, self.index_type = spec.lowering, spec.index_type
        self.defaults = dict(spec.defaults)
        calls = ClientCalls(self.server, self.name, self.primary_key.name)
        self.searcher = Searcher(calls, self.name, self.primary_key.name, self.index_type, self.lowering)

    def __repr__(self) -> str:
        field = self.lowering.field
        return (
            f"<Collection {self.name!r} at {self.server.uri}: {self.index_type.name} on {field.name!r}, {field.dim} "
            f"dimensions, {field.metric}, vectors {'dropped' if field.storage == 'dropped' else 'kept'}>"
        )

    @classmethod
    def create(
        cls,
        server: Server | str,
        name: str,
        *,
        encoder: Encoder | str | Path,
        index_type: str,
        field: str = DEFAULT_FIELD,
        primary_key: str = f"{DEFAULT_KEY}:INT64",
        columns: Sequence[str] = (),
        metric: str | None = None,
        keep_vectors: bool = True,
        vector_type: str = "FLOAT_VECTOR",
        description: str = "",
        consistency_level: str | None = None,
        partition_key: str | None = None,
        dynamic: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> Collection:
        """Create a collection with an index type on its vector field.

        Args:
            server: A connected server or its address.
            name: Its name.
            encoder: The encoder, or its file.
            index_type: Name of a registered index type, e.g. ``"DRQ"``.
            field: Name of the vector field.
            primary_key: ``name:INT64`` or ``name:VARCHAR(n)``.
            columns: Scalar fields, each ``name:TYPE``, e.g. ``word:VARCHAR(64)``, ``tags:ARRAY<VARCHAR(64)>(16)``,
                ``about:JSON``, ``year:INT64:nullable``, ``lang:VARCHAR(8):default=en``.
            metric: The metric, to be checked; only the encoder's is possible.
            keep_vectors: True to keep the vectors for exact re-ranking.
            vector_type: The type of the field that keeps them: ``FLOAT_VECTOR``, or ``FLOAT16_VECTOR`` for half the
                disk, whose numbers have 11 significant bits and are at most 65,504.
            description: A text for people.
            consistency_level: The collection's default consistency, as in Milvus.
            partition_key: A scalar field by whose values Milvus spreads the rows over partitions.
            dynamic: True for a collection that takes values without a field, as Milvus's dynamic fields.
            options: Create options of the index type.

        Raises:
            UsageError: If a name, type or option is wrong, or the collection exists.
            UnsupportedError: If the server lacks a capability that the index type needs.
            EncoderError: If the encoder cannot be used.
            ServerError: If Milvus fails; nothing is left behind.
        """
        spec = design(
            server,
            name,
            encoder=encoder,
            index_type=index_type,
            field=field,
            primary_key=primary_key,
            columns=columns,
            metric=metric,
            keep_vectors=keep_vectors,
            vector_type=vector_type,
            partition_key=partition_key,
            dynamic=dynamic,
            options=options,
        )
        create(spec, description=description, consistency_level=consistency_level)
        return cls(spec)

    @classmethod
    def open(cls, server: Server | str, name: str, *, encoder: Encoder | str | Path) -> Collection:
        """Open a collection with the encoder that it was created with.

        Raises:
            UsageError: If there is no such collection, or it is not one of Alula's.
            EncoderError: If it was created with another encoder; both fingerprints are named.
            ServerError: If Milvus fails.
        """
        return cls(open_spec(server, name, encoder))

    def load(
        self,
        source: str | Path | Sequence[str | Path] | Source,
        *,
        vector_column: str | None = None,
        text_column: str | None = None,
        mapping: Mapping[str, str] | None = None,
        metadata: str | Path | None = None,
        **arguments: Any,
    ) -> LoadReport:
        """Load rows from a source; rows with an existing id are replaced.

        Args:
            source: A source, or paths, globs or URLs of files of the encoder's inputs.
            vector_column: The column with the vectors; by default the only list of numbers.
            text_column: The column with the texts; by default the only one of strings. It can be a field as well.
            mapping: The source's column of each field that has another name there.
            metadata: For a file of arrays, a table whose row i belongs to vector i.
            arguments: As `alula.ingest.load.load`: ``partition``, ``journal``, ``max_errors``, ``progress``, ...

        Raises:
            UsageError, DataError: If the source or a row cannot be used; with ``max_errors=0`` nothing was written.
            ServerError: If Milvus refuses rows.
        """
        if not isinstance(source, str | Path | Sequence):
            return load(self.target(), source, **arguments)
        rows = open_rows(
            self.lowering.encoder,
            source,
            vector_column=vector_column,
            text_column=text_column,
            mapping=mapping,
            types=self.target().types,
            metadata=metadata,
        )
        return load(self.target(), rows, **arguments)

    def target(self) -> Target:
        """The collection as a load writes to it."""
        return Target.of(self.spec)

    def insert(
        self, inputs: npt.ArrayLike | Sequence[str], columns: Mapping[str, Sequence[Any]], **arguments: Any
    ) -> LoadReport:
        """Load rows from memory.

        Args:
            inputs: The encoder's inputs: vectors (n, d), uint8 images (n, h, w, c), or n texts.
            columns: Scalar columns of length n, the primary key included. The values of a JSON field are what it
                contains: dictionaries, lists, numbers, texts.
            arguments: As `load`.

        Raises:
            UsageError, DataError: If a row cannot be used; nothing was written.
            ServerError: If Milvus refuses rows.
        """
        encoder = self.lowering.encoder
        checked = inputs if encoder.info.input == "vectors" else encoder.check_inputs(inputs)
        return self.load(ArraySource(checked, columns, encoder.info.input, self.target().types), **arguments)

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
        """Search for the best rows for each query.

        Args:
            queries: The encoder's inputs: vectors (n, d), uint8 images (n, h, w, c), or n texts; or one of them. An
                encoder of images or texts also takes its own embeddings, floats (n, d).
            limit: Results per query.
            offset: Results to leave out at the start.
            filter: A scalar filter in Milvus's expression language.
            output_fields: Fields to return with each hit.
            partitions: Partitions to search; all by default.
            consistency_level: As in Milvus; the collection's own by default.
            rerank: The number of candidates to score by exact vectors: all by default, 0 for none.
            timeout: Seconds for one call to the server.
            options: Search options of the index type, e.g. ``bits=64`` or ``candidates=1000``. Options that are not
                given, and `rerank`, are taken from the collection's `defaults`.

        Returns:
            One list of hits per query, best first.

        Raises:
            DataError: If the encoder does not take the queries: wrong type or dimension, NaN or infinite values.
            UsageError: If an option, the limit or the filter is wrong.
            ServerError: If Milvus fails.
        """
        self.check_output_fields(output_fields)
        request = SearchRequest.build(
            self.lowering,
            self.index_type,
            queries,
            limit=limit,
            offset=offset,
            filter=filter,
            output_fields=output_fields,
            partitions=partitions,
            consistency_level=consistency_level,
            rerank=rerank,
            timeout=timeout,
            options=options,
            defaults=self.defaults,
        )
        return self.searcher.search(request)

    def set_defaults(self, **options: Any) -> None:
        """Store default search options with the collection; none to remove them all.

        Args:
            options: Search options of the index type, and ``rerank``.

        Raises:
            UsageError: If an option is unknown or its value wrong.
            UnsupportedError: If the server has no place to store them.
            ServerError: If Milvus fails.
        """
        checked = check_options(self.index_type.all_search_options, options, self.index_type.name)
        check_rerank(checked["rerank"], self.lowering.field)
        dim = self.lowering.field.dim
        self.lowering.plan_search(np.ones((1, dim), np.float32), checked, 1)  # rejects impossible values
        given = {name: checked[name] for name in options if checked[name] is not None}
        write_defaults(self.server, self.name, self.primary_key.name, {k: str(v) for k, v in given.items()})
        self.defaults = given

    def fetch(self, ids: Iterable[Id], fields: Sequence[str]) -> dict[Id, dict[str, Any]]:
        """Fetch fields of rows by id; unknown ids are left out.

        Raises:
            UsageError: If there is no such field.
            ServerError: If Milvus fails.
        """
        self.check_output_fields(fields)
        return self.searcher.fetch(list(dict.fromkeys(ids)), fields, Scope())

    def check_output_fields(self, names: Sequence[str]) -> None:
        """Raise a `UsageError` for a name that is no field; dynamic values have any name."""
        if self.spec.dynamic:
            return
        field = self.lowering.field
        known = [self.primary_key.name, *(scalar.name for scalar in self.fields)]
        known += [field.name] if field.storage != "dropped" else []
        for name in names:
            if name not in known and name not in (spec.name for spec in self.lowering.fields):
                raise UsageError(f"The collection {self.name!r} has no field {name!r}; it has: {', '.join(known)}.")

    def search_like(self, id_: Id, *, limit: int = 10, offset: int = 0, **arguments: Any) -> Hits:
        """Search for the rows most like a stored one, which is left out.

        Args:
            id_: The primary key of the stored row.
            limit: The number of results.
            offset: Results to leave out at the start.
            arguments: As `search`.

        Raises:
            UsageError: If there is no row with that id, or the vectors were dropped.
        """
        check_limit(limit, offset, most=MAX_RESULTS - 1)
        vector = self.searcher.vector_of(id_, Scope(consistency_level=arguments.get("consistency_level")))
        (hits,) = self.search(vector, limit=limit + offset + 1, **arguments)
        return Hits([hit for hit in hits if hit.id != id_][offset : offset + limit])

    def count(self) -> int:
        """The number of rows, every acknowledged one included."""
        return load_and_count(self.server, self.name)

    def delete(self, ids: Sequence[Id]) -> None:
        """Delete rows by id."""
        delete_rows(self.server, self.name, self.primary_key.name, ids)

    def describe(self) -> Description:
        """See `describe`."""
        return describe(self.server, self.name)

    def drop(self) -> None:
        """Drop the collection with all its rows."""
        drop(self.server, self.name)


def drop(server: Server | str, name: str) -> None:
    """Drop a collection of Alula's with all its rows.

    Raises:
        UsageError: If there is no such collection, or it is not one of Alula's.
        ServerError: If Milvus fails.
    """
    server = connected(server, must_exist=True)
    describe(server, name, count=False)
    with milvus_errors(f"drop the collection {name!r}"):
        server.client.drop_collection(name)
