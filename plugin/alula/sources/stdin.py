"""Copy standard input to a file, which a load can read twice and resume."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from alula.errors import DataError, UsageError

ENDINGS = (".jsonl", ".csv", ".tsv", ".txt")  # formats that need not be read from their end
_BLOCK = 1 << 20


def spool_stdin(path: Path, stream: BinaryIO, progress: Callable[[int], None] | None = None) -> None:
    """Copy a stream to a file, which appears only when it is whole.

    Args:
        path: The file; its ending, one of `ENDINGS`, says the format.
        stream: Read to its end.
        progress: Called with the bytes copied so far.

    Raises:
        UsageError: If the ending is another one.
        DataError: If nothing comes, or the file cannot be written.
    """
    if path.suffix not in ENDINGS:
        raise UsageError(f"Standard input can be {', '.join(ENDINGS)}, and not {path.suffix or path.name}.")
    done = 0
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                while block := stream.read(_BLOCK):
                    file.write(block)
                    done += len(block)
                    if progress is not None:
                        progress(done)
                file.flush()
                os.fsync(file.fileno())
            if not done:
                raise DataError("Nothing came from standard input.")
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"Standard input cannot be kept in {path}: {error.strerror}.") from None
