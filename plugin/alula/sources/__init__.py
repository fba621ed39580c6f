"""Sources: rows out of files or memory, in batches."""

from alula.sources.arrays import ArraySource
from alula.sources.base import Batch, Cursor, Source
from alula.sources.files import FileSource
from alula.sources.mapping import ColumnMapping, read_mapping
from alula.sources.opening import check_finite, open_source, read_inputs, read_vectors
from alula.sources.stdin import spool_stdin

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
