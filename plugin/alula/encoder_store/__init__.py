"""Encoder files in Milvus itself, for every client of the database."""

from alula.encoder_store.content import read
from alula.encoder_store.download import pull
from alula.encoder_store.entries import (
    COLLECTION,
    PART_BYTES,
    BadRow,
    Entry,
    Query,
    entries,
    entries_and_bad_rows,
    find,
)
from alula.encoder_store.removal import RemoveResult, made_with, remove
from alula.encoder_store.repairing import RepairResult, repair
from alula.encoder_store.rows import querying
from alula.encoder_store.upload import PushResult, push

__all__ = [
    "COLLECTION",
    "PART_BYTES",
    "BadRow",
    "Entry",
    "PushResult",
    "Query",
    "RemoveResult",
    "RepairResult",
    "entries",
    "entries_and_bad_rows",
    "find",
    "made_with",
    "pull",
    "push",
    "querying",
    "read",
    "remove",
    "repair",
]
