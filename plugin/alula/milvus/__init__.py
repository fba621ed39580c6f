"""Servers: connect, ask what they can do, and speak their dialect."""

from alula.milvus.aliases import alias_target, aliases_of, point_alias
from alula.milvus.calls import Calls, ClientCalls, NativeHits, NativeSearch, Scope
from alula.milvus.capabilities import MissingRightsError, probe, version
from alula.milvus.connection import Server, connect, is_local, milvus_errors, server_words, trouble_with_port
from alula.milvus.deleting import delete_rows
from alula.milvus.expressions import any_of, literal
from alula.milvus.failures import Failure, what_failed
from alula.milvus.index_build import wait_for_indexes
from alula.milvus.load_state import ensure_loaded, load_collection
from alula.milvus.row_set import Id, RowSet
from alula.milvus.writing import Columns, send, slices, write_request

__all__ = [
    "Calls",
    "ClientCalls",
    "Columns",
    "Failure",
    "Id",
    "MissingRightsError",
    "NativeHits",
    "NativeSearch",
    "RowSet",
    "Scope",
    "Server",
    "alias_target",
    "aliases_of",
    "any_of",
    "connect",
    "delete_rows",
    "ensure_loaded",
    "is_local",
    "literal",
    "load_collection",
    "milvus_errors",
    "point_alias",
    "probe",
    "send",
    "server_words",
    "slices",
    "trouble_with_port",
    "version",
    "wait_for_indexes",
    "what_failed",
    "write_request",
]
