"""Aliases: names of collections that can be moved to another one in one step."""

from __future__ import annotations

import grpc
from pymilvus.exceptions import MilvusException

from alula.errors import UsageError
from alula.milvus.connection import Server, milvus_errors
from alula.milvus.failures import is_unimplemented


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


def aliases_of(server: Server, collection: str) -> list[str]:
    """The aliases of a collection.

    Milvus 2.6 and later describe a collection from a cache, which keeps its aliases when one is moved. The list of
    aliases comes from no cache, and servers without it have no such cache.

    Raises:
        ServerError: If Milvus fails.
    """
    with milvus_errors(f"list the aliases of {collection!r}"):
        try:
            # Milvus 2.3 reads the database of this call from no metadata
            found = server.client.list_aliases(collection, db_name=server.login.get("database", ""))
        except (MilvusException, grpc.RpcError) as error:
            if not is_unimplemented(error):
                raise
            found = server.client.describe_collection(collection)
        return [str(alias) for alias in found.get("aliases", ())]


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
