"""Learned sparse and binary-code index types for Milvus."""

from alula.collections import Collection, Description, describe, drop
from alula.encoders import load_encoder
from alula.errors import AlulaError, DataError, EncoderError, ServerError, Unsupported, UsageError
from alula.search import Hit
from alula.servers import Server, connect

__all__ = [
    "AlulaError",
    "Collection",
    "DataError",
    "Description",
    "EncoderError",
    "Hit",
    "Server",
    "ServerError",
    "Unsupported",
    "UsageError",
    "connect",
    "describe",
    "drop",
    "load_encoder",
]
