"""Servers: connect, ask what they can do, and speak their dialect."""

from alula.servers.aliases import alias_target, point_alias
from alula.servers.calls import Calls, ClientCalls, Found, Id, NativeSearch, Scope
from alula.servers.capabilities import ask, version
from alula.servers.connection import Server, connect, is_local, milvus_errors, server_words, trouble_with_port
from alula.servers.defaults import write_defaults
from alula.servers.failures import Failure, what_failed
from alula.servers.filters import any_of, literal
from alula.servers.requests import Columns, fill_field, send, slices, write_request
from alula.servers.rows import deletable, delete_rows

__all__ = [
    "Calls",
    "ClientCalls",
    "Columns",
    "Failure",
    "Found",
    "Id",
    "NativeSearch",
    "Scope",
    "Server",
    "alias_target",
    "any_of",
    "ask",
    "connect",
    "deletable",
    "delete_rows",
    "fill_field",
    "is_local",
    "literal",
    "milvus_errors",
    "point_alias",
    "send",
    "server_words",
    "slices",
    "trouble_with_port",
    "version",
    "what_failed",
    "write_defaults",
    "write_request",
]
