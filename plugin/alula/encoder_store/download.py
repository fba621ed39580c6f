"""Pull an encoder file out of the store of a database."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

from alula.encoder_store.content import read
from alula.encoder_store.entries import Entry, find
from alula.encoder_store.rows import querying
from alula.errors import AlulaError, UsageError
from alula.milvus.connection import Server
from alula.progress import Progress, silent


def pull(
    server: Server,
    wanted: str,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> tuple[Entry, Path]:
    """Write a file of the store to disk, complete or not at all.

    Args:
        server: The connected server.
        wanted: As for `find`.
        out: The file to write; by default its name with the ending ``.onnx``, in the current folder.
        overwrite: Replace another file.
        progress: As for `read`.

    Returns:
        The entry and the file. A file that has these bytes already is left as it is.

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
            raise UsageError(f'{path} is there, and is another file; give another out="...", or overwrite=True.')
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
