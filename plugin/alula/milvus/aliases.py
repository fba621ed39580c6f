"""Aliases: names of collections that can be moved to another one in one step."""

from __future__ import annotations

import grpc
from pymilvus.exceptions import MilvusException

from alula.errors import UsageError
from alula.milvus.connection import Server, milvus_errors


def alias_target(server: Server, name: str) -> str | None:
    """The collection that an alias points to; None if there is no such alias.

    Raises:
        UsageError: If the name is that of a collection.
        ServerError: If Milvus fails.
    """
    if not server.has_collection(name):
        return None
    with milvus_errors(f"describe {name!r}"):
        description = server.client.describe_collection(name)
    if name not in description.get("aliases", ()):
        raise UsageError(f"{name!r} is a collection and not an alias; name an alias, or one that does not exist yet.")
    return str(description["collection_name"])


def point_alias(server: Server, alias: str, collection: str) -> str | None:
    """Point an alias to a collection, in one step for all searches.

    Returns:
        The collection that it pointed to before; None if it is new.

    Raises:
        UsageError: If the name is that of a collection.
        ServerError: If Milvus fails.
    """
    before = alias_target(server, alias)
    with milvus_errors(f"point the alias {alias!r} to {collection!r}"):
        if before is None:
            try:
                server.client.create_alias(collection, alias)
            except (MilvusException, grpc.RpcError):
                # it may exist and point to a dropped collection
                server.client.alter_alias(collection, alias)
        else:
            server.client.alter_alias(collection, alias)
    return before
