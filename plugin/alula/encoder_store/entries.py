"""The entries of the encoder store, read from its rows by a `Query` function.

The collection `COLLECTION` of a database contains rows of three kinds, by their ``role``:

- ``part``: a piece of a file, in base64: number ``part`` of the file ``sha256``;
- ``file``: all parts of a file are present and were read back; ``data`` describes it as JSON;
- ``name``: the name in ``data`` names the file ``sha256``; of several such rows, the one with the greatest ``part``
  counts.

They are written in this order, so readers never see an incomplete file, and a name always names one. An interrupted
push leaves parts that are not read; the next push of the same file continues with them, and any push removes those of
other files after `alula.encoder_store.rows.LEFTOVER_SECONDS`.

Ids are random, also when a call is repeated whose answer was lost: Milvus 2.3.5 leaves rows out of a result when two
have the same id. Several rows that say the same do no harm.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

from alula.encoders import ENCODERS, METRICS, Input
from alula.encoders.contract import MAX_FILE_BYTES
from alula.errors import UsageError
from alula.milvus.expressions import any_of, literal

COLLECTION = "_alula_encoders"
FORMAT = 1
PART_BYTES = 65535 // 4 * 3  # of a file: as many as Milvus's longest VARCHAR contains in base64
MAX_TIME = 2**32  # seconds since 1970, which every calendar has

# fields of an entry in the JSON of its row
_DESCRIBED = ("size", "parts", "kind", "input", "metric", "input_dim", "output_dim")
_NAME = re.compile(r"\w[\w.-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGITS = re.compile(r"[0-9a-f]{8,64}")
_ALIKE = {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC"}  # scripts with letters of the same shapes

Query: TypeAlias = Callable[[str, Sequence[str]], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Entry:
    """An encoder file in the store, complete.

    Args:
        sha256: Its fingerprint.
        names: Its names; empty if newer files have them now.
        size: Bytes.
        parts: Number of its parts.
        kind: ``flops`` or ``drq``.
        input: ``vectors``, ``images`` or ``text``.
        metric: The metric it was trained for.
        input_dim: Dimensions of a vector, or of the embedding of an image or text.
        output_dim: ``flops``: sparse dimensions; ``drq``: bits of the longest code.
        pushed: Time of the push, in seconds since 1970.
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

    def __str__(self) -> str:
        """Its names and the first digits of its fingerprint, for messages."""
        digits = self.sha256[:16]
        return f"{', '.join(self.names)} ({digits})" if self.names else digits

    def to_json(self) -> str:
        """The ``data`` of its ``file`` row."""
        return json.dumps({"format": FORMAT, **{field: getattr(self, field) for field in _DESCRIBED}})


@dataclass(frozen=True)
class BadRow:
    """A row that describes or names nothing that can be read; readers skip it.

    Args:
        id: Its primary key.
        sha256: The fingerprint that it states.
        reason: The fault.
        newer: True if a newer Alula may have written it.
    """

    id: str
    sha256: str
    reason: str
    newer: bool = False

    def __str__(self) -> str:
        """The row and its fault, printable whatever it contains."""
        return f"{self.id!a} of {self.sha256[:16]!a}: {self.reason}"


def entries(query: Query) -> list[Entry]:
    """List the files by name, those without a name last; bad rows are skipped.

    Args:
        query: Returns the wanted fields of the rows that satisfy a filter, at consistency Strong; no rows if there is
            no collection `COLLECTION`.
    """
    return entries_and_bad_rows(query)[0]


def entries_and_bad_rows(query: Query) -> tuple[list[Entry], list[BadRow]]:
    """The files that `entries` lists, and the rows that were skipped."""
    rows = query(any_of("role", ["file", "name"]), ["id", "role", "sha256", "part", "pushed", "data"])
    names, files, bad = names_in(rows), {}, []
    for row in rows:
        if row["role"] == "file":
            found = _entry(row, names)
            if isinstance(found, Entry):
                files[found.sha256] = found
            else:
                bad.append(found)
    for row in rows:
        if row["role"] == "name" and not _NAME.fullmatch(row["data"]):
            bad.append(BadRow(row["id"], row["sha256"], "it states a name that no encoder can have"))
        elif row["role"] == "name" and row["sha256"] not in files:
            newer = any(one.newer and one.sha256 == row["sha256"] for one in bad)
            bad.append(BadRow(row["id"], row["sha256"], "it names a file that is not there", newer))
    return sorted(files.values(), key=lambda entry: (not entry.names, entry.names, entry.sha256)), bad


def find(query: Query, wanted: str) -> Entry:
    """Find a file by name or fingerprint.

    Args:
        query: As for `entries`.
        wanted: A name, a sha256, or eight or more first digits of one.

    Raises:
        UsageError: If there is no such file, or several fingerprints begin with these digits.
    """
    known = entries(query)
    for entry in known:
        if wanted in entry.names:
            return entry
    digits = wanted.lower()
    matches = [entry for entry in known if _DIGITS.fullmatch(digits) and entry.sha256.startswith(digits)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"Several encoders begin with {wanted}: {_listed(matches)}; give more of the digits.")
    raise UsageError(
        f"There is no encoder {wanted!r} in this database; there are: {_listed(known)}. Push one with 'alula encoders "
        "push FILE'."
    )


def names_in(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The fingerprint that each name names."""
    latest = sorted((row for row in rows if row["role"] == "name"), key=lambda row: (int(row["part"]), row["sha256"]))
    # a name may become a file name, so anything that cannot have been pushed as a name is ignored
    return {row["data"]: row["sha256"] for row in latest if _NAME.fullmatch(row["data"])}


def _entry(row: Mapping[str, Any], names: Mapping[str, str]) -> Entry | BadRow:
    sha256, newer = str(row["sha256"]), False
    own = tuple(sorted(name for name, named in names.items() if named == sha256))
    try:
        described = json.loads(row["data"])
        newer = type(described["format"]) is int and described["format"] > FORMAT
        fields = {field: described[field] for field in _DESCRIBED}
        if described["format"] == FORMAT and _SHA256.fullmatch(sha256) and _are_possible(fields):
            return Entry(sha256=sha256, names=own, pushed=min(max(0, int(row["pushed"])), MAX_TIME), **fields)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    reason = "a newer Alula wrote it: upgrade Alula" if newer else "it does not describe an encoder file"
    return BadRow(row["id"], sha256, reason, newer)


def _are_possible(fields: Mapping[str, Any]) -> bool:
    """True if the fields of a description can be those of an encoder file."""
    counts = [fields[name] for name in ("size", "parts", "input_dim", "output_dim")]
    return (
        all(type(count) is int and count > 0 for count in counts)
        and fields["size"] <= MAX_FILE_BYTES
        and fields["parts"] == -(-fields["size"] // PART_BYTES)
        and max(fields["input_dim"], fields["output_dim"]) < 2**31
        and fields["kind"] in ENCODERS
        and fields["input"] in get_args(Input)
        and fields["metric"] in METRICS
    )


def _listed(some: Sequence[Entry]) -> str:
    return ", ".join(map(str, some)) or "none"


def check_name(name: str) -> str:
    """The name; raise a `UsageError` unless it can be an encoder's."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be an encoder's name: at most 100 letters, digits, dots, dashes or underscores. Give one "
            'with name="...".'
        )
    if _DIGITS.fullmatch(name.lower()):
        raise UsageError(
            f'The name {name!r} would be taken for the beginning of a sha256; give another with name="...".'
        )
    scripts = _ALIKE & {unicodedata.name(char, "").split(" ")[0] for char in name}
    if len(scripts) > 1 or unicodedata.normalize("NFKC", name) != name:
        raise UsageError(
            f'The name {name!a} looks like another one; give one in the letters of one script with name="...".'
        )
    return name


def rows_of(role: str, sha256: str) -> str:
    """The filter of the rows of one kind of one file."""
    return f"role == {literal(role)} and sha256 == {literal(sha256)}"
