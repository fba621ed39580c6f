"""Servers: connect, ask what they can do, and speak their dialect."""

from alula.servers.capabilities import ask, version
from alula.servers.connection import Server, connect, is_local, milvus_errors
from alula.servers.filters import any_of, literal
from alula.servers.rows import deletable, delete_rows

__all__ = [
    "Server",
    "any_of",
    "ask",
    "connect",
    "deletable",
    "delete_rows",
    "is_local",
    "literal",
    "milvus_errors",
    "version",
]
