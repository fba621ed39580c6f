"""The bytes of a file in the encoder store, put together from its parts."""

from __future__ import annotations

import base64
import functools
import hashlib

from alula.encoder_store.entries import COLLECTION, Entry, Query, find, rows_of
from alula.errors import EncoderError
from alula.milvus.retrying import repeat_until
from alula.milvus.writing import REQUEST_BYTES
from alula.progress import Progress, silent

PARTS_PER_CALL = REQUEST_BYTES // 65536


def read(query: Query, wanted: str | Entry, *, progress: Progress = silent) -> bytes:
    """Read a file.

    Args:
        query: As for `entries`. With an `Entry` of a Strong query, consistency Eventually is enough and much faster:
            the query for parts that a server does not see yet is repeated.
        wanted: As for `find`, or its result.
        progress: Receives the stage "reading" and its bytes.

    Returns:
        Its bytes, checked against its sha256.

    Raises:
        UsageError: If there is no such file.
        EncoderError: If it is damaged.
    """
    entry = find(query, wanted) if isinstance(wanted, str) else wanted
    data = content(query, entry, "reading", progress)
    if data is None:
        raise EncoderError(
            f"The encoder {entry} in {COLLECTION!r} is damaged: its parts do not give a file of that "
            "fingerprint. Push its file again with 'alula encoders push FILE --replace'."
        )
    return data


def content(query: Query, entry: Entry, stage: str, progress: Progress) -> bytes | None:
    """The bytes of a file; None if they do not have its fingerprint."""
    data = bytearray()
    for start in range(0, entry.parts, PARTS_PER_CALL):
        page = functools.partial(_page, query, entry.sha256, start, min(start + PARTS_PER_CALL, entry.parts))
        texts = repeat_until(lambda found: "" not in found, page)  # rows may come late
        try:
            data += b"".join(base64.b64decode(text, validate=True) for text in texts)
        except ValueError:
            return None
        progress(stage, min(len(data), entry.size), entry.size)
    return bytes(data) if hashlib.sha256(data).hexdigest() == entry.sha256 else None


def _page(query: Query, sha256: str, start: int, stop: int) -> list[str]:
    """Parts of a file in base64, "" for missing ones."""
    rows = query(f"{rows_of('part', sha256)} and part >= {start} and part < {stop}", ["part", "data"])
    found = {int(row["part"]): str(row["data"]) for row in rows}
    return [found.get(number, "") for number in range(start, stop)]
