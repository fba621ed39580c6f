"""Sources: rows out of files or memory, in batches."""

from alula.ingest.sources.arrays import ArraySource
from alula.ingest.sources.base import Batch, Cursor, Source
from alula.ingest.sources.files import FileSource
from alula.ingest.sources.mapping import ColumnMapping, read_mapping
from alula.ingest.sources.opening import check_finite, open_source, read_inputs, read_vectors
from alula.ingest.sources.stdin import spool_stdin

__all__ = [
    "ArraySource",
    "Batch",
    "ColumnMapping",
    "Cursor",
    "FileSource",
    "Source",
    "check_finite",
    "open_source",
    "read_inputs",
    "read_mapping",
    "read_vectors",
    "spool_stdin",
]
