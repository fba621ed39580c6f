"""A replica in a folder, opened again by memory map."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alula.catalog.schema import ScalarField
from alula.encoders import Encoder
from alula.errors import DataError
from alula.index_types import IndexType, LocalIndex
from alula.kernels.array_folder import METADATA_FILE, whole_folder
from alula.replica.replica_rows import ReplicaRows

FORMAT = 1
_INDEX, _COLUMNS, _PRINTS = "index", "columns.arrow", "fingerprints.npy"


@dataclass(frozen=True)
class Origin:
    """The collection that a replica was read from.

    Args:
        collection: Its name.
        server: The server's address.
        identity: See `alula.Description`.
        settings: Its stored settings.
        primary_key: Its primary key.
        fields: Its other scalar fields.
        defaults: Its default search options.
    """

    collection: str
    server: str
    identity: str
    settings: Mapping[str, str]
    primary_key: ScalarField
    fields: tuple[ScalarField, ...]
    defaults: Mapping[str, Any]


def save(folder: Path, origin: Origin, rows: ReplicaRows) -> None:
    """Write a replica into a folder, atomically, in place of an older one."""
    with whole_folder(folder) as partial:
        rows.index.save(partial / _INDEX)
        with pa.OSFile(str(partial / _COLUMNS), "wb") as file, pa.ipc.new_file(file, rows.columns.schema) as writer:
            writer.write_batch(rows.columns)
        np.save(partial / _PRINTS, rows.prints, allow_pickle=False)
        about = {
            "format": FORMAT,
            "collection": origin.collection,
            "server": origin.server,
            "identity": origin.identity,
            "settings": dict(origin.settings),
            "primary_key": str(origin.primary_key),
            "fields": [str(one) for one in origin.fields],
            "defaults": dict(origin.defaults),
            "rows": len(rows),
            "files": {name: _sha256(partial / name) for name in _files(partial)},
        }
        (partial / METADATA_FILE).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


def read_origin(folder: Path) -> Origin:
    """The collection of a snapshot.

    Raises:
        DataError: If the folder contains no replica, an incomplete one, or one of another version of Alula.
    """
    about = _about(folder)
    if "format" not in about:
        raise DataError(f"The folder {folder} contains no replica that can be read ({METADATA_FILE} is not of one).")
    if about["format"] != FORMAT:
        raise DataError(
            f"The replica in {folder} has the format {about['format']}, and this version of Alula reads {FORMAT}; "
            "open a new replica from the collection and save it."
        )
    if not _is_whole(folder, about.get("files")):
        raise DataError(
            f"The replica in {folder} is not whole: its files are not those that were saved. Copy it again."
        )
    same = ("collection", "server", "identity", "settings", "defaults")
    try:
        key, *fields = map(ScalarField.parse, (about["primary_key"], *about["fields"]))
        return Origin(primary_key=key, fields=tuple(fields), **{name: about[name] for name in same})
    except KeyError as error:
        raise DataError(
            f"The replica in {folder} is not whole: {METADATA_FILE} has no {error}. Copy it again."
        ) from None


def open_rows(folder: Path, kind: IndexType, encoder: Encoder, settings: Mapping[str, str]) -> ReplicaRows:
    """The rows of a snapshot of a collection with these settings, by memory map."""
    index: LocalIndex = kind.open_local(folder / _INDEX, encoder, settings=settings)
    try:
        columns = pa.ipc.open_file(pa.memory_map(str(folder / _COLUMNS))).get_batch(0)
        prints = np.load(folder / _PRINTS, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"The replica in {folder} cannot be read ({error}).") from None
    return ReplicaRows(index, columns, prints)


def _about(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / METADATA_FILE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"The folder {folder} contains no replica that can be read ({error}).") from None


def _files(folder: Path) -> list[str]:
    """The names of every file but the one that lists them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / METADATA_FILE)
    return [path.relative_to(folder).as_posix() for path in files]


def _is_whole(folder: Path, listed: Any) -> bool:
    """True if the files are those that were saved; older snapshots list sizes."""
    if not isinstance(listed, dict) or sorted(listed) != _files(folder):
        return False
    return all(
        (folder / name).stat().st_size == known if isinstance(known, int) else _sha256(folder / name) == known
        for name, known in listed.items()
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
