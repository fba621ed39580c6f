"""Aliases: names that point to a collection, and can be pointed to another one in one step."""

from __future__ import annotations

import grpc
from pymilvus.exceptions import MilvusException

from alula.errors import UsageError
from alula.milvus.connection import Server, milvus_errors


def alias_target(server: Server, name: str) -> str | None:
    """The collection that an alias points to; None if there is no alias of that name.

    Raises:
        UsageError: If it is the name of a collection.
        ServerError: If Milvus fails.
    """
    if not server.has_collection(name):
        return None
    with milvus_errors(f"describe {name!r}"):
        about = server.client.describe_collection(name)
    if name not in about.get("aliases", ()):
        raise UsageError(f"{name!r} is a collection and not an alias; name an alias, or one that does not exist yet.")
    return str(about["collection_name"])


def point_alias(server: Server, alias: str, collection: str) -> str | None:
    """Point an alias to a collection: every search after it sees the new one, none sees neither.

    Returns:
        What it pointed to before; None if it was made.

    Raises:
        UsageError: If it is the name of a collection.
        ServerError: If Milvus fails.
    """
    before = alias_target(server, alias)
    with milvus_errors(f"point the alias {alias!r} to {collection!r}"):
        if before is None:
            try:
                server.client.create_alias(collection, alias)
            except (MilvusException, grpc.RpcError):
                # it may be there and point to a collection that was dropped
                server.client.alter_alias(collection, alias)
        else:
            server.client.alter_alias(collection, alias)
    return before
