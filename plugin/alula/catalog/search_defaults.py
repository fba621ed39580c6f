"""Keep a collection's default search options with the collection itself, in what a server lets be changed.

Milvus servers keep them in the collection's properties. Milvus Lite 2.5 cannot alter anything of a collection, but it
makes and drops scalar indexes while the collection serves, and remembers their parameters: there an index on the
primary key holds them.
"""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from pymilvus.exceptions import MilvusException

from alula.catalog import stored
from alula.errors import UnsupportedError
from alula.milvus.connection import Server, milvus_errors, server_words


def write_defaults(server: Server, name: str, primary_key: str, options: Mapping[str, str]) -> None:
    """Replace a collection's default search options.

    Args:
        server: Where.
        name: The collection.
        primary_key: Its primary key field.
        options: The options as text; none to remove all.

    Raises:
        UnsupportedError: If this server keeps them nowhere.
        ServerError: If Milvus fails.
    """
    with milvus_errors(f"describe the collection {name!r}"):
        properties = server.client.describe_collection(name).get("properties") or {}
        indexes = server.client.list_indexes(name)
    wanted = {stored.DEFAULTS_PREFIX + option: value for option, value in options.items()}
    # Milvus 2.3 cannot remove a property
    emptied = {key: "" for key in properties if key.startswith(stored.DEFAULTS_PREFIX) and key not in wanted}
    if stored.DEFAULTS_INDEX in indexes:
        with milvus_errors(f"change the default options of {name!r}"):
            server.client.drop_index(name, stored.DEFAULTS_INDEX)
    if not wanted and not any(properties[key] for key in emptied):
        return
    refusals = []
    for keep in (_in_properties, _in_index):
        refused = keep(server, name, primary_key, {**emptied, **wanted})
        if refused is None:
            return
        refusals.append(refused)
    raise UnsupportedError(
        f"The server keeps no default search options with the collection {name!r} ({'; '.join(refusals)}); give the "
        "options with each search instead."
    )


def _in_properties(server: Server, name: str, _: str, values: Mapping[str, str]) -> str | None:
    """Write into the collection's properties; None if they are there afterwards, else why not."""
    try:
        server.client.alter_collection_properties(name, dict(values))
        there = server.client.describe_collection(name).get("properties") or {}
    except (MilvusException, grpc.RpcError) as error:
        return server_words(error)
    return None if all(there.get(key, "") == value for key, value in values.items()) else "properties are dropped"


def _in_index(server: Server, name: str, primary_key: str, values: Mapping[str, str]) -> str | None:
    """Write into the parameters of an index on the primary key; None if they are there afterwards, else why not."""
    index = server.client.prepare_index_params()
    index.add_index(primary_key, index_type="INVERTED", index_name=stored.DEFAULTS_INDEX, params=dict(values))
    try:
        server.client.create_index(name, index)
        there = server.client.describe_index(name, stored.DEFAULTS_INDEX)
    except (MilvusException, grpc.RpcError) as error:
        return server_words(error)
    return None if all(there.get(key, "") == value for key, value in values.items()) else "parameters are dropped"
