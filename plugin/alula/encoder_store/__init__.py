"""Encoder files in Milvus itself, for every client of the database."""

from alula.encoder_store.content import PART_BYTES, read
from alula.encoder_store.download import pull
from alula.encoder_store.entries import COLLECTION, Entry, Query, entries, find
from alula.encoder_store.removal import RemoveResult, made_with, remove
from alula.encoder_store.rows import querying
from alula.encoder_store.upload import PushResult, push

__all__ = [
    "COLLECTION",
    "PART_BYTES",
    "Entry",
    "PushResult",
    "Query",
    "RemoveResult",
    "entries",
    "find",
    "made_with",
    "pull",
    "push",
    "querying",
    "read",
    "remove",
]
