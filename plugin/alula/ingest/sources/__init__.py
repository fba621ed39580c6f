"""Sources: rows out of files or memory, in batches."""

from alula.ingest.sources.arrays import ArraySource
from alula.ingest.sources.base import Batch, Cursor, Source
from alula.ingest.sources.files import FileSource, check_finite, open_source, read_inputs, read_vectors

__all__ = [
    "ArraySource",
    "Batch",
    "Cursor",
    "FileSource",
    "Source",
    "check_finite",
    "open_source",
    "read_inputs",
    "read_vectors",
]
