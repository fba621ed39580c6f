"""Load a collection, as far as the login may."""

from __future__ import annotations

import grpc
from pymilvus.client.types import LoadState
from pymilvus.exceptions import MilvusException

from alula.milvus.connection import Server, milvus_errors
from alula.milvus.failures import is_denied
from alula.milvus.retrying import call_once_ready


def load_collection(server: Server, name: str) -> None:
    """Load a collection, once the server is ready; errors as pymilvus raises them."""
    call_once_ready(lambda: server.client.load_collection(name))


def ensure_loaded(server: Server, name: str) -> None:
    """Load a collection; a login that may not load uses one that is loaded.

    Raises:
        ServerError: If Milvus fails, or the collection is not loaded and the login may not load it.
    """
    with milvus_errors(f"load the collection {name!r}"):
        try:
            load_collection(server, name)
        except (MilvusException, grpc.RpcError) as error:
            if not is_denied(error) or not _may_be_loaded(server, name):
                raise


def _may_be_loaded(server: Server, name: str) -> bool:
    """False if the collection is known not to be loaded."""
    try:
        return bool(server.client.get_load_state(name)["state"] == LoadState.Loaded)
    except (MilvusException, grpc.RpcError):  # the login may not ask either: a search will say it
        return True
