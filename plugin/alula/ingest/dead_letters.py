"""Rejected rows as a Parquet file, which can be corrected and loaded in its turn."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alula.errors import AlulaError
from alula.ingest.journal import DeadLetter
from alula.ingest.target import unpack

ROW, REASON = "alula_row", "alula_reason"
_LOAD = b"alula.load"  # key of the file's metadata: the load that wrote it


def write_dead_letters(letters: Iterable[DeadLetter], path: Path, load: str) -> Path | None:
    """Write dead letters, without touching a file that another load wrote or read.

    The columns are those of the source, then the number of the row in the source and the reason.

    Args:
        letters: The rejected rows.
        path: The file. If it is there and not of this load, the next free of ``NAME-2``, ``NAME-3``, ... is used.
        load: Name of the load.

    Returns:
        The written file; None without dead letters.

    Raises:
        AlulaError: If the file cannot be written.
    """
    tables = []
    for letter in letters:
        record = unpack(letter.record)
        kept = dict(zip(record.schema.names, record.columns, strict=True))
        kept |= {ROW: pa.array([letter.number]), REASON: pa.array([letter.reason])}
        tables.append(pa.table(kept))
    if not tables:
        return None
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:  # a column has values of types without a common one, as JSON allows
        whole = pa.Table.from_pylist([{k: str(v) for k, v in table.to_pylist()[0].items()} for table in tables])
    path = next(name for name in _names(path) if not name.exists() or _load_of(name) == load)
    try:
        _replace(whole.replace_schema_metadata({_LOAD: load}), path)
    except OSError as error:
        raise AlulaError(f"The dead letters cannot be written to {path}: {error}.") from error
    return path


def _names(path: Path) -> Iterable[Path]:
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


def _load_of(path: Path) -> str | None:
    """The load that wrote a file; None if it is no file of dead letters."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return metadata.get(_LOAD, b"").decode() or None


def _replace(table: pa.Table, path: Path) -> None:
    """Write a temporary file and rename it, so that no interruption loses rows."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        pq.write_table(table, temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
