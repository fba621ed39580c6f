"""The differences between servers that decide how Alula speaks to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Milvus Lite 2.5's time grows with the square of the rows in one call: 100 queries take 0.04 s, 1,000 a second, 4,000
# hang; and of 1,000 candidates each, 5 queries take 0.02 s, 40 take 0.4 to 4 s, and 40 of 2,000 hang. The limits are
# those of every search, because a gateway does not know which server is behind it.
QUERIES_PER_CALL = 100
CANDIDATES_PER_CALL = 5_000


@dataclass(frozen=True)
class Dialect:
    """The abilities and limits of a server that follow from its kind.

    Other abilities follow from its version and configuration: see `alula.milvus.capabilities.probe`.

    Args:
        name: The server in messages.
        embedded: True for an engine that is a child process of this program: no other program can connect, and Ctrl-C
            in a terminal ends it too.
        writers: Concurrent writing calls.
        longest_retry: Seconds for which retrying a failed call is of any use.
        vector_bytes: Most bytes of float vectors in one answer.
        returns_searched: A search can return the binary field that it searches.
        returns_half: A search can return vectors of half precision.
        upserts: Upserts replace rows; else rows are deleted and inserted.
        partitions: Collections have partitions.
        aliases: Collections have aliases.
        bulk_import: The server may have bulk import.
        maps: Vector fields are mapped from disk where their parameters ask for it.
        templates: Filters may be templates with values beside them.
        defaults: Rows may leave out values that have a default.
        flushes: Rows wait in a log until a flush, and indexes are built in the background.
        line_breaks_in_keys: String keys with line breaks can be found.
        quotes_in_keys: Rows whose string key has a single quote can be deleted.
    """

    name: str
    embedded: bool
    writers: int
    longest_retry: float
    vector_bytes: int
    returns_searched: bool
    returns_half: bool
    upserts: bool
    partitions: bool
    aliases: bool
    bulk_import: bool
    maps: bool
    templates: bool
    defaults: bool
    flushes: bool
    line_breaks_in_keys: bool
    quotes_in_keys: bool

    def can_delete(self, key: int | str) -> bool:
        """True if the row with this key can be deleted, and so replaced."""
        return self.quotes_in_keys or not (isinstance(key, str) and "'" in key)


MILVUS = Dialect(
    name="Milvus",
    embedded=False,
    writers=4,
    longest_retry=math.inf,
    vector_bytes=8 << 20,
    returns_searched=True,
    returns_half=True,
    upserts=True,
    partitions=True,
    aliases=True,
    bulk_import=True,
    maps=True,
    templates=True,  # from 2.4.17 on: `IdTemplates` finds out
    defaults=True,
    flushes=True,
    line_breaks_in_keys=True,
    quotes_in_keys=True,
)
LITE = Dialect(
    name="Milvus Lite",
    embedded=True,
    writers=2,  # 2.5 takes more time for more
    longest_retry=2.0,  # an engine that has ended does not come back
    # 2.5's time for an answer grows with the square of its rows where it returns vectors of floats: 100,000 rows of 384
    # take 2 s in pages of 400 kB, and 47 s in pages of 6 MB
    vector_bytes=200_000,
    returns_searched=False,  # 2.5 returns it in a query
    returns_half=False,  # 2.5 returns them in a query; a search for them fails, and pymilvus repeats it for minutes
    upserts=False,  # 2.5's upsert is a delete that fails on some ids without an error
    partitions=False,  # and it would use all rows without an error
    aliases=False,
    bulk_import=False,
    maps=False,  # its resident memory grows by more than the vectors
    templates=False,  # 2.5 takes a placeholder for a field
    defaults=False,  # 2.5's engine ends when a row leaves such a value out
    flushes=False,
    line_breaks_in_keys=False,
    # 2.5 puts ids unescaped between single quotes into SQL: a delete of an id with a quote fails or, worse, deletes
    # other rows
    quotes_in_keys=False,
)
