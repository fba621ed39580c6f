"""Push an encoder file into the store of a database."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alula.encoder_store.content import PARTS_PER_CALL, content
from alula.encoder_store.entries import COLLECTION, PART_BYTES, Entry, Query, check_name, entries, names_in, rows_of
from alula.encoder_store.rows import (
    create_collection,
    delete_file,
    delete_where,
    flush,
    insert,
    querying,
    remove_leftovers,
)
from alula.encoders import Encoder, EncoderInfo, load_encoder
from alula.errors import ServerError, UsageError
from alula.milvus.connection import Server
from alula.milvus.deleting import delete_rows
from alula.progress import Progress, silent


@dataclass(frozen=True)
class PushResult:
    """The outcome of a push.

    Args:
        entry: The file in the store.
        name: Its name.
        written: True if the file, or a part of it, was written.
        before: Fingerprint of the file that had the name before; None if the name is new.
    """

    entry: Entry
    name: str
    written: bool
    before: str | None


def push(
    server: Server,
    file: str | Path,
    *,
    name: str | None = None,
    replace: bool = False,
    progress: Progress = silent,
) -> PushResult:
    """Write an encoder file into the store, under a name.

    The file is checked first, and read back before it counts as complete. An interrupted push is repeated.

    Args:
        server: The connected server.
        file: The ``.onnx`` file.
        name: Its name; by default the file name without the ending.
        replace: Take the name from another file, and check the parts of this one that are present.
        progress: Receives the stages "sending" and "checking" and their bytes.

    Raises:
        EncoderError: If the file is no encoder.
        UsageError: If the name is not allowed, or names another file.
        ServerError: If Milvus fails; the file is then not in the store.
    """
    path = Path(file)
    encoder = load_encoder(path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != encoder.sha256:
        raise UsageError(f"{path} changed while it was being read; push it again when it is written.")
    name = check_name(path.stem if name is None else name)
    create_collection(server)
    query = querying(server)
    known = {entry.sha256: entry for entry in entries(query)}
    before = next((entry.sha256 for entry in known.values() if name in entry.names), None)
    _check_free(name, before, encoder.sha256, replace)
    new = encoder.sha256 not in known
    entry = _describe(encoder, len(data)) if new else known[encoder.sha256]
    written = _fill(server, query, entry, data, new=new, check=new or replace, progress=progress)
    if new or written:
        insert(server, "file", entry.sha256, {0: entry.to_json()}, entry.pushed)
    if before != entry.sha256:
        _point(server, query, name, entry.sha256, replace=replace)
    remove_leftovers(server, query, {*known, entry.sha256})
    flush(server)
    entry = dataclasses.replace(entry, names=tuple(sorted({*entry.names, name})))
    return PushResult(entry, name, new or written, before)


def _check_free(name: str, before: str | None, sha256: str, replace: bool) -> None:
    if before not in (None, sha256) and not replace:
        raise UsageError(
            f"The name {name!r} stands for another encoder ({str(before)[:16]}, and this is {sha256[:16]}); give "
            'another with name="...", or replace=True.'
        )


def _describe(encoder: Encoder, size: int) -> Entry:
    info: EncoderInfo = encoder.info
    return Entry(
        sha256=encoder.sha256,
        names=(),
        size=size,
        parts=-(-size // PART_BYTES),
        kind=info.kind,
        input=info.input,
        metric=info.metric,
        input_dim=info.input_dim,
        output_dim=encoder.output_dim,
        pushed=int(time.time()),
    )


def _fill(
    server: Server, query: Query, entry: Entry, data: bytes, *, new: bool, check: bool, progress: Progress
) -> bool:
    """Write the missing parts of a file; True if the file was incomplete.

    Args:
        server: The connected server.
        query: As for `entries`.
        entry: The file.
        data: Its bytes.
        new: True if the file is not complete in the store.
        check: Read the parts back even if none was missing.
        progress: As for `push`.
    """
    parts = rows_of("part", entry.sha256)
    quick = querying(server, "Eventually")
    every = range(entry.parts)
    # of a new file a part may be sent twice
    there = (quick if new else query)(parts, ["part"])
    missing = sorted({*every} - {int(row["part"]) for row in there})
    if not missing and not check:
        return False
    if missing and not new:
        delete_where(server, query, rows_of("file", entry.sha256))
    for numbers in (missing, every):  # all of them if the present parts are damaged
        _send_parts(server, entry, data, numbers, progress)
        # a Strong query: after it a server sees the parts without waiting
        ids = sorted((int(row["part"]), row["id"]) for row in query(parts, ["id", "part"]))
        # of a part that was sent twice every push keeps the same row
        delete_rows(server, COLLECTION, "id", [b for (m, _), (n, b) in itertools.pairwise(ids) if m == n])
        if content(quick, entry, "checking", progress) == data:
            return bool(numbers)
        delete_file(server, query, entry.sha256)
    raise ServerError(
        f"Milvus returned another file than was written into {COLLECTION!r}; check that the server is well, and "
        "push it again."
    )


def _send_parts(server: Server, entry: Entry, data: bytes, numbers: Sequence[int], progress: Progress) -> None:
    present = entry.parts - len(numbers)
    for start in range(0, len(numbers), PARTS_PER_CALL):
        some = numbers[start : start + PARTS_PER_CALL]
        pieces = {i: base64.b64encode(data[i * PART_BYTES : (i + 1) * PART_BYTES]).decode() for i in some}
        insert(server, "part", entry.sha256, pieces)
        progress("sending", min(entry.size, (present + start + len(some)) * PART_BYTES), entry.size)


def _point(server: Server, query: Query, name: str, sha256: str, *, replace: bool) -> None:
    """Point a name to a file: insert a newer row, then delete the others."""
    rows = query('role == "name"', ["id", "role", "sha256", "part", "data"])
    _check_free(name, names_in(rows).get(name), sha256, replace)  # another push may have taken it since
    own = [row for row in rows if row["data"] == name]
    number = 1 + max((int(row["part"]) for row in own), default=0)
    insert(server, "name", sha256, {number: name})
    delete_rows(server, COLLECTION, "id", [row["id"] for row in own])
