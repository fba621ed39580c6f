"""Read the rows of a collection in the order of their keys, and count them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa

from alula.errors import ServerError
from alula.milvus.connection import Server, milvus_errors
from alula.milvus.expressions import literal
from alula.milvus.wire.query_results import to_arrow
from alula.milvus.wire.types import ARROW_TYPES
from alula.sources.base import Cursor

MAX_PAGE_ROWS = 16384  # Milvus returns no more at once
FIRST_PAGE_ROWS = 128  # of the first page, while the rows' lengths are unknown
PAGE_BYTES = 8 << 20
# A query with a limit promises no order but in this mode, which is that of pymilvus's iterator: each segment returns
# its first rows by key. Pages may be shorter or longer than asked for (2.3.5), and only an empty one is the end.
# pymilvus's iterator itself never ends on Lite 2.5, and fails on 2.3.5 where keys are strings with quotes.
_IN_ORDER = {"iterator": "True", "reduce_stop_for_best": "True"}


class Key(Protocol):
    """A primary key field."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def data_type(self) -> str:
        """Its Milvus type."""
        ...


def keys_of(server: Server, name: str, key: Key, filter: str = "") -> Iterator[Any]:
    """The primary keys of a collection in ascending order; errors as `read_pages`.

    Strings are in the order of their UTF-8 bytes.
    """
    schema = pa.schema([(key.name, ARROW_TYPES[key.data_type])])
    for page in read_pages(server, name, schema, key.name, filter=filter):
        yield from page.column(0).to_pylist()


def count_rows(
    server: Server, name: str, filter: str = "", *, partition: str = "", timeout: float | None = None
) -> int:
    """Count the rows of a loaded collection, at consistency Strong.

    Args:
        server: The connected server.
        name: The collection.
        filter: A filter expression of Milvus that rows must satisfy.
        partition: A partition; "" for all.
        timeout: Seconds to wait.

    Raises:
        UsageError: If the filter cannot be used.
        ServerError: If Milvus fails.
    """
    scope: dict[str, Any] = {"partition_names": [partition]} if partition else {}
    (row,) = _query(server, name, ["count(*)"], filter=filter, timeout=timeout, **scope)
    return int(row["count(*)"])


def read_pages(
    server: Server,
    name: str,
    schema: pa.Schema,
    key: str,
    *,
    filter: str = "",
    after: Cursor | None = None,
    counted: bool = False,
    row_bytes: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """Read fields of a collection's rows in the order of their keys, page by page.

    Args:
        server: The connected server.
        name: The collection.
        schema: The fields, the primary key among them.
        key: The primary key.
        filter: A filter expression of Milvus that rows must satisfy.
        after: Begin behind the row with this key.
        counted: Compare the number of rows read with a count at the end; for collections without concurrent writers.
        row_bytes: About the bytes of a row, if known: the first page is then as large as the others.

    Raises:
        UsageError: If the filter cannot be used.
        ServerError: If Milvus fails, returns rows in another order, or too few.
    """
    vectors = any(pa.types.is_fixed_size_list(field.type) for field in schema)
    page_bytes = min(PAGE_BYTES, server.dialect.vector_bytes) if vectors else PAGE_BYTES
    limit = FIRST_PAGE_ROWS if row_bytes is None else min(MAX_PAGE_ROWS, max(FIRST_PAGE_ROWS, page_bytes // row_bytes))
    # Milvus 2.3 may answer pages before it has applied the last writes; a strong count waits for them
    begin, read, total = after, 0, _count_behind(server, name, filter, key, after)
    while total:  # Milvus Lite 2.5 cannot return sparse vectors of no rows
        try:
            rows = _query(server, name, schema.names, filter=filter, key=key, after=after, limit=limit, **_IN_ORDER)
        except ServerError:
            if limit == 1:
                raise
            limit = max(1, limit // 8)  # the rows may be too long for one reply
            continue
        if not rows:
            break
        page = to_arrow(rows, schema)
        keys = page.column(key).to_pylist()
        before = keys[:1] if after is None else [after, keys[0]]
        if sorted({*before, *keys}) != [*before[:-1], *keys]:
            raise ServerError(f"Milvus returned the rows of {name!r} out of order; load from files instead.")
        yield page
        read += len(keys)
        after = keys[-1]
        limit = min(MAX_PAGE_ROWS, 4 * limit, max(1, page_bytes * len(rows) // max(1, page.nbytes)))

    # rows may have been deleted since
    if counted and read < min(total, _count_behind(server, name, filter, key, begin)):
        # seen on 2.3.5, soon after many writes: a server that moves its segments can skip rows
        raise ServerError(f"Milvus returned {read:,} of {total:,} rows of {name!r}; try again.")


def _count_behind(server: Server, name: str, filter: str, key: str, after: Cursor | None) -> int:
    (row,) = _query(server, name, ["count(*)"], filter=filter, key=key, after=after)
    return int(row["count(*)"])


def _query(
    server: Server,
    name: str,
    fields: Sequence[str],
    *,
    filter: str,
    key: str = "",
    after: Cursor | None = None,
    **options: Any,
) -> list[Any]:
    """A Strong query of the rows that satisfy a filter and lie behind a key, if given."""
    terms = [f"({filter})"] if filter else []
    if after is not None:
        terms.append(f"{key} > {literal(after)}")
    with milvus_errors(f"read the collection {name!r}", filter=filter):
        rows: list[Any] = server.client.query(
            name, filter=" and ".join(terms), output_fields=list(fields), consistency_level="Strong", **options
        )
    return rows
