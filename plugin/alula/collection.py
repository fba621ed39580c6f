"""Create, open and describe Alula collections in Milvus."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus import DataType

from alula.catalog import stored
from alula.catalog.schema import MAX_VARCHAR, ScalarField, check_distinct, check_name
from alula.catalog.search_defaults import write_defaults
from alula.encoders import MAX_DIM, DrqEncoder, Encoder, FlopsEncoder, load_encoder
from alula.errors import AlulaError, EncoderError, UsageError
from alula.index_types import (
    MAX_RESULTS,
    Capabilities,
    FieldSpec,
    IndexType,
    Lowering,
    NativeIndex,
    Option,
    Storage,
    VectorField,
    check_options,
    choose_storage,
    index_type,
    index_types,
    vector_index,
    vector_spec,
)
from alula.ingest.load import LoadReport, load
from alula.ingest.target import Target
from alula.milvus import ClientCalls, Id, Scope, Server, connect, delete_rows, milvus_errors, probe
from alula.search import Hit, Searcher, check_limit, check_rerank, with_defaults
from alula.sources import ArraySource, FileSource, Source, open_source

DEFAULT_FIELD = "embedding"
DEFAULT_KEY = "id"
# The longest vector that can be kept; 4096 is the capacity of Milvus's longest ARRAY.
MAX_KEPT_DIM: Mapping[Storage, float] = {"field": MAX_DIM, "column": 4096, "dropped": math.inf}


@dataclass(frozen=True)
class Description:
    """What is known of an Alula collection without its encoder.

    Args:
        name: The collection.
        server: The server's address.
        rows: Rows in it; None when they were not counted.
        settings: What Alula stored with it: index type, encoder fingerprint, layout, metric, ...
        primary_key: Its primary key field.
        fields: Its scalar fields.
        companions: Fields that Alula keeps, with Milvus's type names.
        text: The user's description.
        defaults: Search options that hold where a search does not give them, as `Collection.set_defaults` wrote them.
        identity: What the server calls it by itself: another one when it was dropped and created anew. "" where the
            server has no such thing (Milvus Lite).
    """

    name: str
    server: str
    rows: int | None
    settings: Mapping[str, str]
    primary_key: ScalarField
    fields: tuple[ScalarField, ...]
    companions: Mapping[str, str]
    text: str
    defaults: Mapping[str, str]
    identity: str = ""


class Collection:
    """A Milvus collection with one of Alula's index types on a vector field.

    Use `create` or `open`; both take a connected `Server` or an address for `alula.connect`.

    Attributes:
        defaults: Search options that hold where a search does not give them, ``rerank`` among them.
        searcher: What searches it.
    """

    def __init__(
        self,
        server: Server,
        name: str,
        primary_key: ScalarField,
        fields: tuple[ScalarField, ...],
        lowering: Lowering,
        *,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.server = server
        self.name = name
        self.primary_key = primary_key
        self.fields = fields
        self.lowering = lowering
        self.defaults = dict(defaults or {})
        self.index_type: IndexType = index_type(lowering.settings["type"])
        calls = ClientCalls(server, name, primary_key.name)
        self.searcher = Searcher(calls, name, primary_key.name, self.index_type, lowering)

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
        description: str = "",
        consistency_level: str | None = None,
        partition_key: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Collection:
        """Create a collection with an index type on its vector field.

        Args:
            server: Where.
            name: Its name.
            encoder: The encoder, or its file.
            index_type: Name of a registered index type, e.g. ``"DRQ"``.
            field: Name of the vector field.
            primary_key: ``name:INT64`` or ``name:VARCHAR(n)``.
            columns: Scalar fields, each ``name:TYPE``.
            metric: The encoder's metric by default; another one is refused.
            keep_vectors: Keep the vectors for exact re-ranking.
            description: A text for people.
            consistency_level: The collection's default consistency, as in Milvus.
            partition_key: A scalar field by whose values Milvus spreads the rows over partitions.
            options: Create options of the index type.

        Raises:
            UsageError: If a name, type or option is wrong, or the collection exists.
            UnsupportedError: If the server cannot hold the index type.
            EncoderError: If the encoder cannot be used.
            ServerError: If Milvus fails; nothing is left behind.
        """
        collection = cls.design(
            server,
            name,
            encoder=encoder,
            index_type=index_type,
            field=field,
            primary_key=primary_key,
            columns=columns,
            metric=metric,
            keep_vectors=keep_vectors,
            options=options,
        )
        collection.make(description=description, consistency_level=consistency_level, partition_key=partition_key)
        return collection

    @classmethod
    def design(
        cls,
        server: Server | str,
        name: str,
        *,
        encoder: Encoder | str | Path,
        index_type: str,
        field: str = DEFAULT_FIELD,
        primary_key: str | ScalarField = f"{DEFAULT_KEY}:INT64",
        columns: Sequence[str | ScalarField] = (),
        metric: str | None = None,
        keep_vectors: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> Collection:
        """A collection as `create` would create it, which is not created yet: `make` does that.

        Args and errors are those of `create`.
        """
        server = _server(server)
        encoder = _encoder(encoder)
        kind = index_type_for(index_type, encoder)
        checked = check_options(kind.create_options, options or {}, kind.name)
        key, fields = _fields(name, field, primary_key, columns)
        if metric not in (None, encoder.info.metric):
            raise UsageError(
                f"The encoder {encoder.path.name} was trained for {encoder.info.metric}, not {metric}; train one with "
                f"'alula train {kind.encoder_kind} --metric {metric}', or leave --metric out."
            )
        if server.has_collection(name):
            raise UsageError(f"The collection {name!r} exists at {server.uri}; drop it with 'alula drop {name}' first.")
        lowering = new_lowering(kind, encoder, field, probe(server), keep_vectors=keep_vectors, options=checked)
        check_distinct([key.name, field, *(f.name for f in fields), *(f.name for f in lowering.fields)])
        return cls(server, name, key, fields, lowering)

    def make(
        self, *, description: str = "", consistency_level: str | None = None, partition_key: str | None = None
    ) -> None:
        """Create in Milvus what `design` designed; arguments as `create`.

        Raises:
            UsageError: If the partition key is no field that can be one.
            ServerError: If Milvus fails; nothing is left behind.
        """
        _create(
            self.server,
            self.name,
            self.primary_key,
            self.fields,
            self.lowering,
            description=description,
            consistency_level=consistency_level,
            partition_key=partition_key,
        )

    @classmethod
    def open(cls, server: Server | str, name: str, *, encoder: Encoder | str | Path) -> Collection:
        """Open a collection with the encoder that it was created with.

        Raises:
            UsageError: If there is no such collection, or it is not one of Alula's.
            EncoderError: If the encoder is another one; both fingerprints are named.
        """
        server = _server(server, must_exist=True)
        encoder = _encoder(encoder)
        about = describe(server, name, count=False)
        lowering = lowering_of(f"The collection {name!r}", about.settings, encoder)
        with milvus_errors(f"load the collection {name!r}"):
            server.client.load_collection(name)
        defaults = read_defaults(index_type(about.settings["type"]), about.defaults)
        return cls(server, name, about.primary_key, about.fields, lowering, defaults=defaults)

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
        """Load rows from a source; rows whose id is there already are replaced.

        Args:
            source: A source, or paths, globs or URLs of files: vectors, images or texts, whatever the encoder takes.
            vector_column: The column with the vectors; by default the only list of numbers.
            text_column: The column with the texts; by default the only one of strings. It may be a field as well.
            mapping: For fields, the column that they are read from, where that has another name.
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
            metadata=metadata,
        )
        return load(self.target(), rows, **arguments)

    def target(self) -> Target:
        """The collection as a load sees it."""

        def search(vectors: Any, limit: int) -> list[list[Id]]:
            found = self.searcher.search(vectors, limit=limit, scope=Scope(consistency_level="Strong"))
            return [[hit.id for hit in hits] for hits in found]

        return Target(self.server, self.name, self.primary_key, self.fields, self.lowering, self.count, search)

    def insert(
        self, inputs: npt.ArrayLike | Sequence[str], columns: Mapping[str, Sequence[Any]], **arguments: Any
    ) -> LoadReport:
        """Load rows from memory.

        Args:
            inputs: What the encoder takes: vectors (n, d), uint8 images (n, h, w, c), or n texts.
            columns: Scalar columns of length n, the primary key among them.
            arguments: As `load`.

        Raises:
            UsageError, DataError: If a row cannot be used; nothing was written.
            ServerError: If Milvus refuses rows.
        """
        encoder = self.lowering.encoder
        checked = inputs if encoder.info.input == "vectors" else encoder.check_inputs(inputs)
        return self.load(ArraySource(checked, columns, encoder.info.input), **arguments)

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
    ) -> list[list[Hit]]:
        """The best rows for each query.

        Args:
            queries: What the encoder takes: vectors (n, d), uint8 images (n, h, w, c), or n texts; or one of them. An
                encoder of images or texts also takes its own embeddings, floats (n, d).
            limit: Results per query.
            offset: Results to leave out at the start.
            filter: A scalar filter in Milvus's expression language.
            output_fields: Fields to return with each hit.
            partitions: Partitions to search; all by default.
            consistency_level: As in Milvus; the collection's own by default.
            rerank: How many candidates to score by exact vectors: all by default, 0 for none.
            timeout: Seconds for one call to the server.
            options: Search options of the index type, e.g. ``bits=64`` or ``candidates=1000``. The collection's
                `defaults` hold for those that are not given, and for `rerank`.

        Returns:
            One list of hits per query, best first.

        Raises:
            DataError: If the queries are not what the encoder takes, or have another dimension, NaN or infinite values.
            UsageError: If an option, the limit or the filter is wrong.
            ServerError: If Milvus fails.
        """
        self.check_output_fields(output_fields)
        vectors = query_vectors(self.lowering.encoder, queries)
        # Milvus takes blanks for a filter that it cannot read
        scope = Scope(filter if filter and filter.strip() else "", partitions, consistency_level, timeout)
        rerank, options = with_defaults(self.defaults, rerank, options)
        return self.searcher.search(
            vectors,
            limit=limit,
            offset=offset,
            output_fields=output_fields,
            rerank=rerank,
            scope=scope,
            options=options,
        )

    def set_defaults(self, *, rerank: int | None = None, **options: Any) -> None:
        """Store search options with the collection, for all who open it later; without any, remove those there are.

        Args:
            rerank: As in `search`.
            options: Search options of the index type.

        Raises:
            UsageError: If an option is unknown or its value wrong.
            UnsupportedError: If the server keeps them nowhere.
            ServerError: If Milvus fails.
        """
        checked = check_options(self.index_type.search_options, options, self.index_type.name)
        dim = self.lowering.field.dim
        self.lowering.plan_search(np.ones((1, dim), np.float32), checked, 1)  # refuses what the encoder cannot do
        given = {name: checked[name] for name in options if checked[name] is not None}
        if rerank is not None:
            check_rerank(rerank, self.lowering.field)
            given["rerank"] = rerank
        write_defaults(self.server, self.name, self.primary_key.name, {k: str(v) for k, v in given.items()})
        self.defaults = given

    def fetch(self, ids: Iterable[Id], fields: Sequence[str]) -> dict[Id, dict[str, Any]]:
        """Some fields of some rows, by id; rows that are not there are left out.

        Raises:
            UsageError: If there is no such field.
            ServerError: If Milvus fails.
        """
        self.check_output_fields(fields)
        return self.searcher.fetch(set(ids), fields, Scope())

    def check_output_fields(self, names: Sequence[str]) -> None:
        """Raise a `UsageError` for a name that is no field of the collection."""
        field = self.lowering.field
        known = [self.primary_key.name, *(scalar.name for scalar in self.fields)]
        known += [field.name] if field.storage != "dropped" else []
        for name in names:
            if name not in known and name not in (spec.name for spec in self.lowering.fields):
                raise UsageError(f"The collection {self.name!r} has no field {name!r}; it has: {', '.join(known)}.")

    def search_like(self, id_: Id, *, limit: int = 10, offset: int = 0, **arguments: Any) -> list[Hit]:
        """Rows like one that is in the collection, which is itself left out; arguments as `search`.

        Raises:
            UsageError: If there is no row of that id, or the vectors were dropped.
        """
        check_limit(limit, offset, most=MAX_RESULTS - 1)
        vector = self.searcher.vector_of(id_, Scope(consistency_level=arguments.get("consistency_level")))
        (hits,) = self.search(vector, limit=limit + offset + 1, **arguments)
        return [hit for hit in hits if hit.id != id_][offset : offset + limit]

    def count(self) -> int:
        """The number of rows, every acknowledged one counted."""
        return _count(self.server, self.name)

    def delete(self, ids: Sequence[Id]) -> None:
        """Delete rows by id."""
        delete_rows(self.server, self.name, self.primary_key.name, ids)

    def describe(self) -> Description:
        """See `describe`."""
        return describe(self.server, self.name)

    def drop(self) -> None:
        """Drop the collection with all its rows."""
        drop(self.server, self.name)


def new_lowering(
    kind: IndexType,
    encoder: Encoder,
    field: str,
    capabilities: Capabilities,
    *,
    keep_vectors: bool,
    options: Mapping[str, Any],
) -> Lowering:
    """How a server is to hold an index type on a new field.

    Args:
        kind: The index type.
        encoder: Its encoder.
        field: Name of the vector field.
        capabilities: What the server can do.
        keep_vectors: Keep the vectors for exact re-ranking.
        options: Checked create options of the index type, each present.

    Raises:
        UnsupportedError: If the server cannot hold it.
        UsageError: If it cannot keep vectors of so many dimensions.
    """
    chosen = kind.choose(capabilities, options)
    storage = choose_storage(keep_vectors, capabilities)
    if encoder.info.input_dim > MAX_KEPT_DIM[storage]:
        raise UsageError(
            f"The vectors of {encoder.path.name} have {encoder.info.input_dim:,} dimensions, and "
            f"{capabilities.server} keeps vectors of at most {MAX_KEPT_DIM[storage]:,}; create the collection "
            "without them (--drop-vectors, keep_vectors=False)."
        )
    vector_field = VectorField(field, encoder.info.input_dim, encoder.info.metric, storage)
    settings = {
        "format": stored.FORMAT,
        "type": kind.name,
        "field": field,
        "dim": str(vector_field.dim),
        "metric": vector_field.metric,
        "vectors": storage,
        "encoder": encoder.sha256,
        **chosen,
    }
    lowering = kind.lowering(vector_field, encoder, settings)
    lowering.settings["bytes_per_row"] = str(sum(spec.bytes_per_row for spec in lowering.fields))
    return lowering


def added_fields(lowering: Lowering) -> list[FieldSpec]:
    """The fields that a collection has for its index type: the companions, and the kept vectors where there are any."""
    kept = vector_spec(lowering.field)
    return [*lowering.fields, *([kept] if kept else [])]


def native_indexes(lowering: Lowering) -> list[NativeIndex]:
    """The native indexes of a lowering; the first, which is searched, carries what Alula stores of the collection."""
    searched, kept = lowering.index, vector_index(lowering.field)
    params = {**searched.params, **stored.in_index_params(lowering.settings)}
    return [replace(searched, params=params), *([kept] if kept else [])]


def column_of(encoder: Encoder, vector_column: str | None, text_column: str | None) -> str | None:
    """The column of a file to encode, where the user named one.

    Raises:
        UsageError: If the user named one for something that the encoder does not take.
    """
    takes = encoder.info.input
    for given, needs, option in ((vector_column, "vectors", "vector"), (text_column, "text", "text")):
        if given is not None and takes != needs:
            raise UsageError(
                f"The encoder {encoder.path.name} takes {takes}, so there is no {option} column to name; leave "
                f"--{option}-column out."
            )
    return vector_column or text_column


def open_rows(
    encoder: Encoder,
    places: str | Path | Sequence[str | Path],
    *,
    vector_column: str | None = None,
    text_column: str | None = None,
    mapping: Mapping[str, str] | None = None,
    metadata: str | Path | None = None,
) -> FileSource:
    """Open files of what an encoder takes; arguments as `Collection.load`.

    Raises:
        UsageError, DataError: If they cannot be opened, or the encoder takes something else.
    """
    info = encoder.info
    return open_source(
        places,
        column_of(encoder, vector_column, text_column),
        info.input,
        mapping=mapping,
        metadata=metadata,
        dim=info.input_dim if info.input == "vectors" else None,
        image_shape=info.image_shape if info.input == "images" else None,
    )


def describe(server: Server | str, name: str, *, count: bool = True) -> Description:
    """What is known of an Alula collection without its encoder.

    Args:
        server: Where.
        name: The collection.
        count: Count its rows, for which the server loads the collection.

    Raises:
        UsageError: If there is no such collection, or it is not one of Alula's.
    """
    server = _server(server, must_exist=True)
    if not server.has_collection(name):
        with milvus_errors("list the collections"):
            others = sorted(server.client.list_collections())
        raise UsageError(f"There is no collection {name!r} at {server.uri}; there are: {', '.join(others) or 'none'}.")
    with milvus_errors(f"describe the collection {name!r}"):
        about = server.client.describe_collection(name)
        indexes = [server.client.describe_index(name, index) for index in server.client.list_indexes(name)]
    text, settings = stored.read(indexes, about.get("description", ""))
    if not settings and any(index.get("index_type") in index_types() for index in indexes):
        raise UsageError(
            f"{server.uri} is a gateway, which shows {name!r} as other clients see it; give Milvus's own address."
        )
    if not settings:
        raise UsageError(f"The collection {name!r} has no Alula index type; create one with 'alula create'.")
    if settings.get("format") != stored.FORMAT:
        raise AlulaError(
            f"The collection {name!r} has Alula's collection format {settings.get('format')}, and this version reads "
            f"{stored.FORMAT}; update Alula."
        )
    kept = [entry for entry in about["fields"] if not entry.get("is_primary")]
    own = settings["field"]
    mine = {f["name"]: DataType(f["type"]).name for f in kept if f["name"] == own or f["name"].startswith(f"{own}__")}
    (key,) = (scalar_field(entry) for entry in about["fields"] if entry.get("is_primary"))
    fields = tuple(scalar_field(entry) for entry in kept if entry["name"] not in mine)
    rows = _count(server, name) if count else None
    defaults = stored.read_defaults(indexes, about.get("properties") or {})
    identity = str(about.get("collection_id") or "")
    return Description(name, server.uri, rows, settings, key, fields, mine, text, defaults, identity)


def drop(server: Server | str, name: str) -> None:
    """Drop a collection of Alula's with all its rows.

    Raises:
        UsageError: If there is no such collection, or it is not one of Alula's.
    """
    server = _server(server, must_exist=True)
    describe(server, name, count=False)
    with milvus_errors(f"drop the collection {name!r}"):
        server.client.drop_collection(name)


def _server(server: Server | str, *, must_exist: bool = False) -> Server:
    return connect(server, must_exist=must_exist) if isinstance(server, str) else server


def _encoder(encoder: Encoder | str | Path) -> Encoder:
    return encoder if isinstance(encoder, FlopsEncoder | DrqEncoder | Encoder) else load_encoder(encoder)


def lowering_of(what: str, settings: Mapping[str, str], encoder: Encoder) -> Lowering:
    """The lowering that was chosen when a collection was created.

    Args:
        what: What was created with them, as an error names it.
        settings: What Alula stored with the collection.
        encoder: Its encoder.

    Raises:
        EncoderError: If it is another encoder; both fingerprints are named.
    """
    if settings["encoder"] != encoder.sha256:
        raise EncoderError(
            f"{what} was created with the encoder {settings['encoder'][:16]}, and {encoder.path} is "
            f"{encoder.sha256[:16]}; another encoder cannot read its rows."
        )
    kind = index_type_for(settings["type"], encoder)
    lowering: Lowering = kind.lowering(field_of(settings), encoder, settings)
    return lowering


def field_of(settings: Mapping[str, str]) -> VectorField:
    """The vector field of a collection, as it was stored with it."""
    return VectorField(settings["field"], int(settings["dim"]), settings["metric"], settings["vectors"])  # type: ignore[arg-type]


def query_vectors(encoder: Encoder, queries: npt.ArrayLike | Sequence[str]) -> npt.NDArray[np.float32]:
    """Queries as `Collection.search` takes them, as vectors: float32 (n, d).

    Raises:
        DataError: If they are not what the encoder takes, or have another dimension, NaN or infinite values.
    """
    if _are_vectors(queries):
        return encoder.check_vectors(queries, what="queries")
    return encoder.embed(queries, queries=True)


def _are_vectors(queries: Any) -> bool:
    """Whether queries are vectors already: floating numbers, which images and texts never are."""
    while isinstance(queries, list | tuple) and queries:
        queries = queries[0]
    return not isinstance(queries, str | list | tuple) and np.asarray(queries).dtype.kind == "f"


def index_type_for(name: str, encoder: Encoder, called: str | None = None) -> Any:
    """The index type of a name; raise an `EncoderError` unless it takes such an encoder, which errors call `called`."""
    kind = index_type(name)
    if kind.encoder_kind != encoder.kind:
        raise EncoderError(
            f"{name} needs an encoder of the kind {kind.encoder_kind!r}, and {called or encoder.path} is of the kind "
            f"{encoder.kind!r}; train one with 'alula train {kind.encoder_kind}'."
        )
    return kind


def read_defaults(kind: IndexType, texts: Mapping[str, str]) -> dict[str, Any]:
    """Default options as they were stored; those that this version does not know are not for it."""
    known = {option.name: option for option in (*kind.search_options, Option("rerank", int, "", minimum=0))}
    found = {}
    for name, text in texts.items():
        if name in known:
            with contextlib.suppress(ValueError, UsageError):
                found[name] = known[name].check(int(text) if known[name].value_type is int else text)
    return found


def _fields(
    name: str, field: str, primary_key: str | ScalarField, columns: Sequence[str | ScalarField]
) -> tuple[ScalarField, tuple[ScalarField, ...]]:
    check_name(name, "collection")
    check_name(field, "field")
    if isinstance(primary_key, str) and ":" not in primary_key:
        primary_key += ":INT64"
    key, *fields = (f if isinstance(f, ScalarField) else ScalarField.parse(f) for f in (primary_key, *columns))
    if key.data_type not in ("INT64", "VARCHAR"):
        raise UsageError(f"The primary key is {key}; Milvus takes INT64 or VARCHAR.")
    return key, tuple(fields)


def _create(
    server: Server,
    name: str,
    key: ScalarField,
    fields: Sequence[ScalarField],
    lowering: Lowering,
    *,
    description: str,
    consistency_level: str | None,
    partition_key: str | None,
) -> None:
    settings = lowering.settings
    client = server.client
    if partition_key is not None:
        server.check_partitions("leave --partition-key out")
        can = [field.name for field in fields if field.data_type in ("INT64", "VARCHAR")]
        if partition_key not in can:
            raise UsageError(
                f"The partition key {partition_key!r} must be an INT64 or VARCHAR field beside the primary key; there "
                f"are: {', '.join(can) or 'none'}."
            )
    schema = client.create_schema(auto_id=False, description=stored.in_description(description, settings))
    _add(schema, key, is_primary=True)
    for field in fields:
        _add(schema, field, **({"is_partition_key": True} if field.name == partition_key else {}))
    for spec in added_fields(lowering):
        _add_spec(schema, spec)
    params = client.prepare_index_params()
    for native in native_indexes(lowering):
        params.add_index(
            native.field, index_type=native.index_type, metric_type=native.metric, params=dict(native.params)
        )
    extra = {"consistency_level": consistency_level} if consistency_level else {}
    made = False
    try:
        with milvus_errors(f"create the collection {name!r}"):
            client.create_collection(name, schema=schema, **extra)
            made = True
            client.create_index(name, params)
            client.load_collection(name)
    except BaseException:
        if made:
            with contextlib.suppress(Exception):
                client.drop_collection(name)
        raise


def _add(schema: Any, field: ScalarField, **extra: Any) -> None:
    length = {"max_length": field.max_length} if field.data_type == "VARCHAR" else {}
    schema.add_field(field.name, DataType[field.data_type], **length, **extra)


def _add_spec(schema: Any, spec: FieldSpec) -> None:
    params = dict(spec.params)
    if "element_type" in params:
        params["element_type"] = DataType[params["element_type"]]
    schema.add_field(spec.name, DataType[spec.data_type], **params)


def scalar_field(entry: Mapping[str, Any]) -> ScalarField:
    """A scalar field as Milvus describes it."""
    data_type = DataType(entry["type"]).name
    return ScalarField(entry["name"], data_type, int(entry.get("params", {}).get("max_length", MAX_VARCHAR)))


def _count(server: Server, name: str) -> int:
    with milvus_errors(f"count the rows of {name!r}"):
        server.client.load_collection(name)
        rows = server.client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")
    return int(rows[0]["count(*)"])
