"""Encoder files kept in Milvus itself: whoever can reach the database can have the encoder, and nobody ships files.

The collection `COLLECTION` of a database holds three kinds of rows, told apart by ``role``:

- ``part``: a piece of a file, in base64; number ``part`` of the file ``sha256``;
- ``file``: says that all parts of a file are there and were read back, and what it is (JSON in ``data``);
- ``name``: the name in ``data`` stands for the file ``sha256``; of several, the one with the highest ``part`` counts.

They are written in this order, so that a reader never sees a file that is not whole, and a name always stands for one.
A push that was interrupted leaves parts that nobody reads; the next push of the same file goes on from them, and any
push removes those of other files after `LEFTOVER_SECONDS`.

Rows have random ids, also when a call is repeated whose answer was lost: Milvus 2.3.5 leaves rows out of an answer when
two have the same id. Several rows that say the same do no harm.

`entries`, `find` and `read` need nothing but a function that answers a query, so that they work without pymilvus's
client as well.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import tenacity
from pymilvus import DataType
from pymilvus.exceptions import MilvusException

from alula.catalog.settings import read_settings
from alula.encoders import Encoder, EncoderInfo, load_encoder
from alula.errors import AlulaError, EncoderError, ServerError, UsageError
from alula.index_types import FieldSpec
from alula.milvus.connection import Server, milvus_errors
from alula.milvus.deleting import delete_rows
from alula.milvus.expressions import any_of, literal
from alula.milvus.retrying import call_with_retries
from alula.milvus.writing import REQUEST_BYTES, send, write_request

COLLECTION = "_alula_encoders"
FORMAT = 1
PART_BYTES = 65535 // 4 * 3  # of a file: as much as Milvus's longest VARCHAR holds in base64
PARTS_PER_CALL = REQUEST_BYTES // 65536
LEFTOVER_SECONDS = 24 * 3600  # younger parts may be of a push that is running
CALL_SECONDS, RETRY_TIMEOUT = 60.0, 60.0

FIELDS = (
    FieldSpec("id", "VARCHAR", 0, {"max_length": 64}),
    FieldSpec("role", "VARCHAR", 0, {"max_length": 8}),
    FieldSpec("sha256", "VARCHAR", 0, {"max_length": 64}),
    FieldSpec("part", "INT64", 8),
    FieldSpec("pushed", "INT64", 8),
    FieldSpec("data", "VARCHAR", 0, {"max_length": 65535}),
    FieldSpec("nothing", "FLOAT_VECTOR", 8, {"dim": 2}),  # Milvus makes no collection without a vector field
)

_ABOUT = ("size", "parts", "kind", "input", "metric", "input_dim", "output_dim")  # of an entry, in the row's JSON
_NAME = re.compile(r"\w[\w.-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGITS = re.compile(r"[0-9a-f]{8,64}")

Query: TypeAlias = Callable[[str, Sequence[str]], Sequence[Mapping[str, Any]]]
Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Entry:
    """A whole encoder file in the store.

    Args:
        sha256: Its fingerprint.
        names: What stands for it; none when each of its names was given to a newer file.
        size: Bytes.
        parts: Rows that hold it.
        kind: ``flops`` or ``drq``.
        input: What it takes: vectors, images or text.
        metric: The metric it was trained for.
        input_dim: Dimensions of a vector, or of the embedding of an image or text.
        output_dim: ``flops``: sparse dimensions; ``drq``: bits of the longest code.
        pushed: When, in seconds since 1970.
    """

    sha256: str
    names: tuple[str, ...]
    size: int
    parts: int
    kind: str
    input: str
    metric: str
    input_dim: int
    output_dim: int
    pushed: int


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Args:
        entry: The file, as it is in the store now.
        name: The name that stands for it.
        written: Whether the file, or a part of it, was not there before.
        before: Fingerprint of what the name stood for before; None if it is new.
    """

    entry: Entry
    name: str
    written: bool
    before: str | None


@dataclass(frozen=True)
class Removed:
    """What a removal did.

    Args:
        entry: The file, as it was in the store.
        names: The names that stand for nothing now.
        gone: Whether the file is gone too, which it is not while it has another name.
    """

    entry: Entry
    names: tuple[str, ...]
    gone: bool


def querying(server: Server, consistency_level: Literal["Strong", "Eventually"] = "Strong") -> Query:
    """The function that `entries`, `find` and `read` ask: answers from the store of a database, loaded if need be.

    Args:
        server: The connected server.
        consistency_level: ``Strong`` for what must be the latest; a server takes 0.3 s for each such query.
    """

    def query(filter_: str, fields: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        def ask() -> Sequence[Mapping[str, Any]]:
            found: Sequence[Mapping[str, Any]] = server.client.query(
                COLLECTION, filter=filter_, output_fields=list(fields), consistency_level=consistency_level
            )
            return found

        with milvus_errors(f"read {COLLECTION!r}"):
            try:
                return ask()
            except MilvusException:
                # one without an index is just being made, and empty
                if not server.client.has_collection(COLLECTION) or not server.client.list_indexes(COLLECTION):
                    return []
                server.client.load_collection(COLLECTION)
                return ask()

    return query


def entries(query: Query) -> list[Entry]:
    """The whole files in the store, by name; those without a name are the last.

    Args:
        query: Answers a filter and the wanted fields with the rows, at consistency Strong; with none where there is no
            collection `COLLECTION`.

    Raises:
        AlulaError: If a newer Alula wrote the store.
    """
    rows = query(any_of("role", ["file", "name"]), ["role", "sha256", "part", "pushed", "data"])
    names = _names(rows)
    files = {row["sha256"]: _entry(row, names) for row in rows if row["role"] == "file"}
    return sorted(files.values(), key=lambda entry: (not entry.names, entry.names, entry.sha256))


def find(query: Query, wanted: str) -> Entry:
    """The file that a name stands for, or that has a fingerprint.

    Args:
        query: As for `entries`.
        wanted: A name, a sha256, or eight or more first digits of one.

    Raises:
        UsageError: If there is none, or several fingerprints begin with these digits.
    """
    there = entries(query)
    for entry in there:
        if wanted in entry.names:
            return entry
    digits = wanted.lower()
    found = [entry for entry in there if _DIGITS.fullmatch(digits) and entry.sha256.startswith(digits)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"Several encoders begin with {wanted}: {_listed(found)}; give more of the digits.")
    raise UsageError(
        f"There is no encoder {wanted!r} in this database; there are: {_listed(there)}. Push one with 'alula encoders "
        "push FILE'."
    )


def read(query: Query, wanted: str | Entry, *, progress: Progress | None = None) -> bytes:
    """The bytes of a file, which have its sha256.

    Args:
        query: As for `entries`. With an `Entry` that is there already, consistency Eventually is enough and much
            faster: parts that a server does not see yet are asked for again.
        wanted: As for `find`, or what it found.
        progress: Told the stage ("reading"), and bytes done and in all.

    Raises:
        UsageError: If there is no such file.
        EncoderError: If it is damaged.
    """
    entry = find(query, wanted) if isinstance(wanted, str) else wanted
    data = _content(query, entry, "reading", progress)
    if data is None:
        raise EncoderError(
            f"The encoder {_called(entry)} in {COLLECTION!r} is damaged: its parts do not give a file of that "
            "fingerprint. Push its file again with 'alula encoders push FILE --replace'."
        )
    return data


def push(
    server: Server,
    file: str | Path,
    *,
    name: str | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Put an encoder file into the store, under a name.

    The file is checked first, and read back before it counts as there. A push that was interrupted is simply repeated.

    Args:
        server: The connected server.
        file: The ``.onnx`` file.
        name: Its name; by default the file's, without the ending.
        replace: Let a name that stands for another file stand for this one, and check what is there of this one.
        progress: Told the stage ("sending", "checking"), and bytes done and in all.

    Raises:
        EncoderError: If it is no encoder.
        UsageError: If the name cannot be one, or stands for another file.
        ServerError: If Milvus fails; the file is then not in the store.
    """
    path = Path(file)
    encoder = load_encoder(path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != encoder.sha256:
        raise UsageError(f"{path} changed while it was being read; push it again when it is written.")
    name = _checked(path.stem if name is None else name)
    _make(server)
    query = querying(server)
    known = {entry.sha256: entry for entry in entries(query)}
    before = next((entry.sha256 for entry in known.values() if name in entry.names), None)
    _check_free(name, before, encoder.sha256, replace)
    new = encoder.sha256 not in known
    entry = _describe(encoder, len(data)) if new else known[encoder.sha256]
    written = _fill(server, query, entry, data, new=new, check=new or replace, progress=progress)
    if new or written:
        about = {"format": FORMAT, **{what: getattr(entry, what) for what in _ABOUT}}
        _insert(server, "file", entry.sha256, {0: json.dumps(about)}, entry.pushed)
    if before != entry.sha256:
        _point(server, query, name, entry.sha256, replace=replace)
    _remove_leftovers(server, query, {*known, entry.sha256})
    _keep(server)
    entry = dataclasses.replace(entry, names=tuple(sorted({*entry.names, name})))
    return Pushed(entry, name, new or written, before)


def pull(
    server: Server,
    wanted: str,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Entry, Path]:
    """Write a file of the store to disk, whole or not at all.

    Args:
        server: The connected server.
        wanted: As for `find`.
        out: Where; by default its name with the ending ``.onnx``, in the current folder.
        overwrite: Write over another file that is there.
        progress: As for `read`.

    Returns:
        What was found, and the file. One that is there already with these bytes is left as it is.

    Raises:
        UsageError: If there is no such encoder, or another file is in the way.
        AlulaError: If the file cannot be written.
        EncoderError: If it is damaged.
        ServerError: If Milvus fails.
    """
    entry = find(querying(server), wanted)
    name = wanted if wanted in entry.names else next(iter(entry.names), entry.sha256[:16])
    path = Path(f"{name}.onnx" if out is None else out)
    if not path.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {path.absolute().parent} to write {path.name} to.")
    if path.exists():
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256:
            return entry, path
        if not (overwrite and path.is_file()):
            raise UsageError(f"{path} is there, and is another file; give another --out, or --overwrite.")
    data = read(querying(server, "Eventually"), entry, progress=progress)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise AlulaError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        part.unlink(missing_ok=True)
    return entry, path


def remove(server: Server, wanted: str, *, force: bool = False) -> Removed:
    """Remove a name, and with its last name the file; or, by its fingerprint, a file with all its names.

    Args:
        server: The connected server.
        wanted: As for `find`.
        force: Remove a file though there are collections that were made with it.

    Raises:
        UsageError: If there is no such encoder, or a collection of the database was made with it.
        ServerError: If Milvus fails.
    """
    query = querying(server)
    entry = find(query, wanted)
    names = (wanted,) if wanted in entry.names else entry.names
    gone = set(names) == set(entry.names)
    if gone and not force:
        users = made_with(server, entry.sha256)
        if users:
            raise UsageError(
                f"The encoder {_called(entry)} is what these collections were made with: {', '.join(users)}. Drop or "
                "migrate them first, or give --force."
            )
    rows = query('role == "name"', ["id", "data"])
    delete_rows(server, COLLECTION, "id", [row["id"] for row in rows if row["data"] in names])
    if gone:
        _delete_file(server, query, entry.sha256)
    _remove_leftovers(server, query, ())
    _keep(server)
    return Removed(entry, names, gone)


def made_with(server: Server, sha256: str) -> list[str]:
    """The collections of the database that were made with an encoder, or have a function that uses it.

    Raises:
        ServerError: If Milvus fails.
    """
    found = []
    client = server.client
    with milvus_errors("look which collections were made with an encoder"):
        for name in sorted(client.list_collections()):
            indexes = [client.describe_index(name, index) for index in client.list_indexes(name)]
            about = client.describe_collection(name)
            kept = [read_settings((), field.get("description", ""))[1] for field in about.get("fields", ())]
            kept += [read_settings(indexes, about.get("description", ""))[1]]
            # a gateway shows an index or a function of ours instead of what is kept
            shown = [*indexes, *(function.get("params", {}) for function in about.get("functions", ()))]
            if any(each.get("encoder") == sha256 for each in (*kept, *shown)):
                found.append(name)
    return found


def _names(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What each name stands for."""
    latest = sorted((row for row in rows if row["role"] == "name"), key=lambda row: (int(row["part"]), row["sha256"]))
    # a name may become a file's, so what cannot have been pushed as one is none
    return {row["data"]: row["sha256"] for row in latest if _NAME.fullmatch(row["data"])}


def _entry(row: Mapping[str, Any], names: Mapping[str, str]) -> Entry:
    sha256 = str(row["sha256"])
    mine = tuple(sorted(name for name, theirs in names.items() if theirs == sha256))
    try:
        about = json.loads(row["data"])
        if about["format"] == FORMAT and _SHA256.fullmatch(sha256):
            return Entry(sha256=sha256, names=mine, pushed=int(row["pushed"]), **{what: about[what] for what in _ABOUT})
    except (ValueError, TypeError, KeyError):
        pass
    raise AlulaError(
        f"A row of {COLLECTION!r} ({sha256[:16]}) is nothing that this version of Alula can read; update Alula."
    )


def _called(entry: Entry) -> str:
    """A file as sentences name it."""
    digits = entry.sha256[:16]
    return f"{', '.join(entry.names)} ({digits})" if entry.names else digits


def _listed(some: Sequence[Entry]) -> str:
    return ", ".join(map(_called, some)) or "none"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be an encoder's name: at most 100 letters, digits, dots, dashes or underscores. Give one "
            "with --name."
        )
    if _DIGITS.fullmatch(name.lower()):
        raise UsageError(f"The name {name!r} would be taken for the beginning of a sha256; give another with --name.")
    return name


def _check_free(name: str, before: str | None, sha256: str, replace: bool) -> None:
    if before not in (None, sha256) and not replace:
        raise UsageError(
            f"The name {name!r} stands for another encoder ({str(before)[:16]}, and this is {sha256[:16]}); give "
            "another --name, or --replace."
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


def _make(server: Server) -> None:
    """Create, index and load the collection, as far as that was not done."""
    client = server.client
    with milvus_errors(f"make the collection {COLLECTION!r}"):
        if not client.has_collection(COLLECTION):
            schema = client.create_schema(
                auto_id=False, description="Encoder files, put here by 'alula encoders push'."
            )
            for field in FIELDS:
                schema.add_field(field.name, DataType[field.data_type], is_primary=field.name == "id", **field.params)
            client.create_collection(COLLECTION, schema=schema, shards_num=1)
        there = {field["name"] for field in client.describe_collection(COLLECTION)["fields"]}
        if there != {field.name for field in FIELDS}:
            raise UsageError(
                f"The collection {COLLECTION!r} at {server.uri} is not what Alula keeps encoders in; rename or "
                "drop it, or use another database."
            )
        if not client.list_indexes(COLLECTION):
            index = client.prepare_index_params()
            index.add_index("nothing", index_type="FLAT", metric_type="L2")
            client.create_index(COLLECTION, index)
        client.load_collection(COLLECTION)


def _keep(server: Server) -> None:
    """Have the rows written to storage, since few more may ever come.

    Milvus keeps new rows in its log and in memory until there are many or some minutes have passed. Milvus 2.3.5 was
    seen to lose such rows for good when it was killed, and with them every gateway its encoders.
    """
    with milvus_errors(f"flush {COLLECTION!r}"):
        server.client.flush(COLLECTION)


def _fill(
    server: Server, query: Query, entry: Entry, data: bytes, *, new: bool, check: bool, progress: Progress | None
) -> bool:
    """See to it that all parts of a file are there; whether any was written, so that it does not count as whole.

    Args:
        server: Where.
        query: As for `entries`.
        entry: What the file is.
        data: What it holds.
        new: Whether it does not count as whole.
        check: Read the parts back also where none was missing.
        progress: As for `push`.
    """
    parts = _of("part", entry.sha256)
    quick = querying(server, "Eventually")
    every = range(entry.parts)
    # of a new file nobody minds if a part is sent that was there already
    there = (quick if new else query)(parts, ["part"])
    missing = sorted({*every} - {int(row["part"]) for row in there})
    if not missing and not check:
        return False
    if missing and not new:
        _delete(server, query, _of("file", entry.sha256))
    for numbers in (missing, every):  # all of them where what was there is of no use
        _send_parts(server, entry, data, numbers, progress)
        # a strong query: after it a server sees the parts without waiting
        ids = sorted((int(row["part"]), row["id"]) for row in query(parts, ["id", "part"]))
        # of parts that are there twice every push keeps the same one
        delete_rows(server, COLLECTION, "id", [b for (m, _), (n, b) in itertools.pairwise(ids) if m == n])
        if _content(quick, entry, "checking", progress) == data:
            return bool(numbers)
        _delete_file(server, query, entry.sha256)
    raise ServerError(
        f"Milvus gave back another file than was written into {COLLECTION!r}; check that the server is well, and push "
        "it again."
    )


def _send_parts(server: Server, entry: Entry, data: bytes, numbers: Sequence[int], progress: Progress | None) -> None:
    there = entry.parts - len(numbers)
    for start in range(0, len(numbers), PARTS_PER_CALL):
        some = numbers[start : start + PARTS_PER_CALL]
        pieces = {i: base64.b64encode(data[i * PART_BYTES : (i + 1) * PART_BYTES]).decode() for i in some}
        _insert(server, "part", entry.sha256, pieces)
        if progress:
            progress("sending", min(entry.size, (there + start + len(some)) * PART_BYTES), entry.size)


def _insert(server: Server, role: str, sha256: str, data: Mapping[int, str], pushed: int | None = None) -> None:
    """Write rows of one file, given as ``part`` and ``data``."""
    count = len(data)
    columns = {
        "role": [role] * count,
        "sha256": [sha256] * count,
        "part": list(data),
        "pushed": [int(time.time()) if pushed is None else pushed] * count,
        "data": list(data.values()),
        "nothing": np.zeros((count, 2), np.float32),
    }

    def call() -> None:
        ids = [uuid.uuid4().hex for _ in data]
        request = write_request(COLLECTION, {"id": ids, **columns}, FIELDS, 0, count, partition="", upsert=False)
        send(server, request, CALL_SECONDS)

    call_with_retries(f"write into {COLLECTION!r}", call, RETRY_TIMEOUT)


def _point(server: Server, query: Query, name: str, sha256: str, *, replace: bool) -> None:
    """Let a name stand for a file: the new row counts as soon as it is there, then the older ones go."""
    rows = query('role == "name"', ["id", "role", "sha256", "part", "data"])
    _check_free(name, _names(rows).get(name), sha256, replace)  # another push may have taken it meanwhile
    mine = [row for row in rows if row["data"] == name]
    number = 1 + max((int(row["part"]) for row in mine), default=0)
    _insert(server, "name", sha256, {number: name})
    delete_rows(server, COLLECTION, "id", [row["id"] for row in mine])


def _remove_leftovers(server: Server, query: Query, known: Iterable[str]) -> None:
    """Remove the parts of files that never became whole, unless a push may still be writing them.

    Args:
        server: Where.
        query: As for `entries`.
        known: Files of which it is known that they are whole.
    """
    others = "".join(f" and sha256 != {literal(sha256)}" for sha256 in known)
    old = f'role == "part" and pushed < {int(time.time()) - LEFTOVER_SECONDS}{others}'
    rows = querying(server, "Eventually")(old, ["id", "sha256"])
    if rows:
        whole = {entry.sha256 for entry in entries(query)}
        delete_rows(server, COLLECTION, "id", [row["id"] for row in rows if row["sha256"] not in whole])


def _delete_file(server: Server, query: Query, sha256: str) -> None:
    for role in ("file", "part"):  # in this order, so that what is left does not count as whole
        _delete(server, query, _of(role, sha256))


def _delete(server: Server, query: Query, filter_: str) -> None:
    delete_rows(server, COLLECTION, "id", [row["id"] for row in query(filter_, ["id"])])


def _of(role: str, sha256: str) -> str:
    return f"role == {literal(role)} and sha256 == {literal(sha256)}"


def _content(query: Query, entry: Entry, stage: str, progress: Progress | None) -> bytes | None:
    """A file's bytes; None if they are not those of its fingerprint."""
    data = bytearray()
    for start in range(0, entry.parts, PARTS_PER_CALL):
        texts = _page(query, entry.sha256, start, min(start + PARTS_PER_CALL, entry.parts))
        try:
            data += b"".join(base64.b64decode(text, validate=True) for text in texts)
        except ValueError:
            return None
        if progress:
            progress(stage, min(len(data), entry.size), entry.size)
    return bytes(data) if hashlib.sha256(data).hexdigest() == entry.sha256 else None


@tenacity.retry(
    retry=tenacity.retry_if_result(lambda texts: "" in texts),
    wait=tenacity.wait_exponential(multiplier=0.05, max=1),
    stop=tenacity.stop_after_attempt(8),
    retry_error_callback=lambda state: state.outcome and state.outcome.result(),
)
def _page(query: Query, sha256: str, start: int, stop: int) -> list[str]:
    """Some parts of a file, in base64; asked for again while some are missing (""), as servers may see rows late."""
    rows = query(f"{_of('part', sha256)} and part >= {start} and part < {stop}", ["part", "data"])
    found = {int(row["part"]): str(row["data"]) for row in rows}
    return [found.get(number, "") for number in range(start, stop)]
