"""The collection that a load writes to: check and encode batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alula.catalog.collection_spec import CollectionSpec, open_spec
from alula.catalog.schema import ScalarField, dynamic_values
from alula.encoders import Encoder, EncoderInfo, Inputs
from alula.errors import DataError, UsageError
from alula.index_types import FieldSpec, Lowering, index_type, vector_spec
from alula.milvus import ClientCalls, Id, Server, milvus_errors
from alula.milvus.reading import count_rows
from alula.milvus.wire.types import field_spec
from alula.milvus.wire.vectors import unfit_for_half
from alula.search import Searcher, SearchRequest
from alula.sources import Batch, Source
from alula.sources.declared_types import DYNAMIC
from alula.sources.json_values import DOCUMENT

BATCH_ROWS = 8192
BATCH_BYTES = 16 << 20
RAW_ROWS = 256  # images and texts per batch: a network takes seconds for them
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CheckedRows:
    """The rows of a batch that can be loaded.

    Args:
        batch: The batch.
        positions: Their positions in it.
        inputs: Their inputs of the encoder.
        values: Their scalar fields, the primary key first.
        bad: The reasons why the others are rejected, by position.
    """

    batch: Batch
    positions: list[int]
    inputs: Inputs
    values: Mapping[str, Any]
    bad: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True)
class Target:
    """A collection as a load sees it.

    Args:
        server: The connected server.
        name: The collection.
        primary_key: Its primary key.
        fields: Its other scalar fields.
        lowering: Its index type.
        dynamic: True if it takes values that have no field.
    """

    server: Server
    name: str
    primary_key: ScalarField
    fields: tuple[ScalarField, ...]
    lowering: Lowering
    dynamic: bool = False

    @classmethod
    def open(cls, server: Server, name: str, encoder: Encoder) -> Target:
        """The collection of a name.

        Raises:
            UsageError: If there is no such collection, or it has no Alula index type.
            EncoderError: If it was created with another encoder.
        """
        return cls.of(open_spec(server, name, encoder))

    @classmethod
    def of(cls, spec: CollectionSpec) -> Target:
        """The collection that a specification describes.

        Raises:
            UsageError: If it has fields that Alula cannot write.
        """
        others = [str(field) for field in spec.fields if not field.writable]
        if others:
            raise UsageError(
                f"Alula cannot write into {spec.name!r}, which has fields of other types: {', '.join(others)}. Clients "
                "can write into it through 'alula gateway'."
            )
        return cls(spec.server, spec.name, spec.primary_key, spec.fields, spec.lowering, spec.dynamic)

    def count(self) -> int:
        """The number of rows, every acknowledged one included."""
        return count_rows(self.server, self.name)

    def search(self, vectors: F32, limit: int) -> list[list[Id]]:
        """The ids of the rows nearest to vectors float32 (n, d), best first."""
        kind = index_type(self.lowering.settings["type"])
        calls = ClientCalls(self.server, self.name, self.primary_key.name)
        searcher = Searcher(calls, self.name, self.primary_key.name, kind, self.lowering)
        request = SearchRequest.build(self.lowering, kind, vectors, limit=limit, consistency_level="Strong")
        found = searcher.search(request)
        return [[hit.id for hit in hits] for hits in found]

    def identity(self) -> str:
        """The server's number of the collection, new after drop and creation.

        "" where the server has none (Milvus Lite).
        """
        with milvus_errors(f"describe the collection {self.name!r}"):
            return str(self.server.client.describe_collection(self.name).get("collection_id") or "")

    @cached_property
    def specs(self) -> tuple[FieldSpec, ...]:
        """Every field that is written, the primary key first."""
        scalars = [field.spec for field in (self.primary_key, *self.fields)]
        scalars += [field_spec(DYNAMIC, "JSON")] if self.dynamic else []
        kept = vector_spec(self.lowering.field)
        return (*scalars, *([kept] if kept else []), *self.lowering.fields)

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The Arrow types of the scalar fields, for sources without types."""
        types = {field.name: field.arrow for field in (self.primary_key, *self.fields)}
        return types | ({DYNAMIC: DOCUMENT} if self.dynamic else {})

    @property
    def batch_rows(self) -> int:
        """Rows in a batch, see `batch_rows`."""
        return batch_rows(self.lowering.encoder.info)

    def auto_ids(self, source: Source) -> bool:
        """True if the row numbers are the keys, because the source has no column for them."""
        return self.primary_key.name not in source.scalars

    def check_source(self, source: Source) -> None:
        """Raise a `UsageError` or `DataError` when no row of a source can be loaded."""
        takes = self.lowering.encoder.info.input
        if source.input != takes:
            raise UsageError(
                f"{source.name} was opened for {source.input}, and the encoder of {self.name!r} takes {takes}."
            )
        if source.dim not in (None, self.lowering.field.dim) and takes == "vectors":
            raise DataError(
                f"The vectors of {source.name} have dimension {source.dim}, and the collection {self.name!r} takes "
                f"{self.lowering.field.dim}."
            )
        if self.auto_ids(source) and self.primary_key.data_type != "INT64":
            raise DataError(
                f"{source.name} has no column {self.primary_key.name!r} for the string ids of {self.name!r}; its "
                f"scalar columns: {', '.join(source.scalars) or 'none'}."
            )
        missing = [field.name for field in self.fields if field.name not in source.scalars and not field.optional]
        if missing:
            raise DataError(
                f"{source.name} lacks the column {', '.join(map(repr, missing))} that {self.name!r} has; add it, or "
                "name the column with its values (mapping=...)."
            )

    def check_partition(self, partition: str) -> None:
        """Raise a `UsageError` unless the collection has that partition."""
        self.server.check_partitions("load without")
        with milvus_errors(f"list the partitions of {self.name!r}"):
            there = self.server.client.list_partitions(self.name)
        if partition not in there:
            raise UsageError(
                f"The collection {self.name!r} has no partition {partition!r}; it has: {', '.join(there)}."
            )

    def ignored(self, source: Source) -> tuple[str, ...]:
        """Columns of a source that are not loaded."""
        loaded = {self.primary_key.name, *(field.name for field in self.fields), *self.dynamic_columns(source.scalars)}
        return tuple(name for name in source.scalars if name not in loaded)

    def dynamic_columns(self, columns: Iterable[str]) -> tuple[str, ...]:
        """The columns that become dynamic values: those without a field of their name."""
        fields = {self.primary_key.name, self.lowering.field.name}
        fields |= {field.name for field in self.fields} | {field.name for field in self.lowering.fields}
        return tuple(name for name in columns if self.dynamic and name not in fields)

    def check(self, batch: Batch, duplicates: Iterable[int] = ()) -> CheckedRows:
        """Find the rows of a batch that can be loaded, and convert their scalars.

        Args:
            batch: The rows.
            duplicates: Numbers of rows whose key an earlier row has.
        """
        bad = dict(batch.bad)
        if isinstance(batch.inputs, np.ndarray) and batch.inputs.dtype.kind == "f":
            self._check_dim(batch.inputs, bad)
        elif isinstance(batch.inputs, list):
            texts: list[Any] = list(batch.inputs)
            for i, text in enumerate(texts):
                if not isinstance(text, str):
                    bad.setdefault(i, f"{text!r} instead of a text")
        key = self.primary_key
        values: dict[str, Any] = {}
        if key.name in batch.columns:
            values[key.name] = self._convert(key, batch, bad)
            self._check_keys(values[key.name], batch, bad, duplicates)
        else:
            values[key.name] = np.arange(batch.start, batch.start + len(batch))
        for field in self.fields:
            if field.name in batch.columns:
                values[field.name] = self._convert(field, batch, bad)
            else:  # optional, see `check_source`
                values[field.name] = [field.default] * len(batch)
        if self.dynamic:
            rest = {name: batch.columns[name] for name in self.dynamic_columns(batch.columns)}
            values[DYNAMIC], wrong = dynamic_values(rest, len(batch))
            for i, reason in wrong.items():
                bad.setdefault(i, reason)
        if not bad:
            return CheckedRows(batch, list(range(len(batch))), batch.inputs, values, {})
        good = [i for i in range(len(batch)) if i not in bad]
        inputs: Any = batch.inputs
        return CheckedRows(batch, good, _take(inputs, good), {n: _take(v, good) for n, v in values.items()}, bad)

    def _check_dim(self, vectors: Any, bad: dict[int, str]) -> None:
        if vectors.shape[1] != self.lowering.field.dim:
            for i in range(len(vectors)):
                bad.setdefault(i, f"{vectors.shape[1]} dimensions, and the collection takes {self.lowering.field.dim}")
        elif self.lowering.field.vector_type == "FLOAT16_VECTOR":
            for i, reason in unfit_for_half(vectors).items():
                bad.setdefault(i, reason)

    @staticmethod
    def _convert(field: ScalarField, batch: Batch, bad: dict[int, str]) -> Any:
        values, wrong = field.convert(batch.columns[field.name])
        for i, reason in wrong.items():
            bad.setdefault(i, reason)
        return values

    def _check_keys(self, keys: Any, batch: Batch, bad: dict[int, str], duplicates: Iterable[int]) -> None:
        for number in duplicates:
            i = number - batch.start
            if 0 <= i < len(batch):
                bad.setdefault(i, f"the {self.primary_key.name} {_plain(keys[i])!r} of an earlier row")
        if not self.server.dialect.line_breaks_in_keys and self.primary_key.data_type == "VARCHAR":
            for i, value in enumerate(keys):
                if "\n" in value or "\r" in value:
                    bad.setdefault(i, f"a line break in the id {value!r}, which Milvus Lite cannot find again")

    def encode(self, checked: CheckedRows, *, encoded: Callable[[int], None] | None = None) -> dict[str, Any]:
        """The columns to write, of checked rows.

        Args:
            checked: The rows.
            encoded: Called with the number of rows encoded since the last call; networks call it every few rows.
        """
        encoder, field = self.lowering.encoder, self.lowering.field
        columns = dict(checked.values)
        if not len(checked):
            return columns
        done = 0

        def embedded(rows: int) -> None:
            nonlocal done
            if encoded:
                encoded(rows - done)
            done = rows

        vectors = encoder.embed(checked.inputs, checked=True, progress=embedded)
        columns |= self.lowering.encode_rows(vectors)
        if field.storage != "dropped":
            columns[field.name] = vectors
        embedded(len(vectors))
        return columns

    # A row of the sample that is compared at the end, kept in the journal as Arrow IPC.

    def remember(self, checked: CheckedRows, i: int) -> bytes:
        """A checked row as bytes."""
        value: Any = cast(Any, checked.inputs)[i]
        kept = pa.array([value]) if isinstance(value, str) else pa.array([np.asarray(value).tobytes()], pa.binary())
        columns = {"": kept} | {name: pa.array([_plain(values[i])]) for name, values in checked.values.items()}
        return pack(pa.RecordBatch.from_pydict(columns))

    def recall(self, records: Iterable[bytes]) -> CheckedRows:
        """Checked rows out of what `remember` made of them."""
        info = self.lowering.encoder.info
        rows = [unpack(record) for record in records]
        given = [row.column("")[0].as_py() for row in rows]
        inputs: Any = given
        if info.input == "vectors":
            inputs = np.stack([np.frombuffer(value, np.float32) for value in given])
        elif info.input == "images":
            inputs = np.stack([np.frombuffer(value, np.uint8).reshape(info.image_shape) for value in given])
        values: dict[str, Any] = {}
        for field in (self.primary_key, *self.fields):
            values[field.name] = [row.column(field.name)[0].as_py() for row in rows]
            if pa.types.is_primitive(field.arrow) and not field.nullable and field.data_type != "BOOL":
                values[field.name] = np.asarray(values[field.name])
        if self.dynamic:
            values[DYNAMIC] = [row.column(DYNAMIC)[0].as_py() for row in rows]
        return CheckedRows(Batch(0, inputs, {}), list(range(len(rows))), inputs, values, {})


def batch_rows(info: EncoderInfo) -> int:
    """Rows in a batch, which bound its memory and, with a network, its time."""
    rows = BATCH_ROWS if info.input == "vectors" else RAW_ROWS
    return max(1, min(rows, BATCH_BYTES // max(4 * info.input_dim, math.prod(info.image_shape))))


def pack(record: pa.RecordBatch) -> bytes:
    """A record batch as Arrow IPC."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, record.schema) as writer:
        writer.write_batch(record)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def unpack(packed: bytes) -> pa.RecordBatch:
    """The record batch of `pack`."""
    return pa.ipc.open_stream(packed).read_next_batch()


def _take(values: Any, positions: list[int]) -> Any:
    return values[positions] if isinstance(values, np.ndarray) else [values[i] for i in positions]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
