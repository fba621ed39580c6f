"""Store a collection's default search options with the collection itself.

Milvus servers store them in the collection's properties. Milvus Lite 2.5 cannot alter a collection, but it creates and
drops scalar indexes of a loaded collection and stores their parameters: there they are parameters of an index on the
primary key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import grpc
from pymilvus.exceptions import MilvusException

from alula.catalog.settings import DEFAULTS_INDEX, DEFAULTS_PREFIX
from alula.errors import UnsupportedError, UsageError
from alula.index_types import IndexType
from alula.milvus.capabilities import MissingRightsError
from alula.milvus.connection import Server, milvus_errors, server_words
from alula.milvus.failures import is_denied


def read_defaults(index_type: IndexType, texts: Mapping[str, str]) -> dict[str, Any]:
    """Parse stored default search options; unknown and invalid ones are left out."""
    known = {option.name: option for option in index_type.all_search_options}
    found = {}
    for name, text in texts.items():
        if name in known:
            with contextlib.suppress(ValueError, UsageError):
                found[name] = known[name].check(int(text) if known[name].value_type is int else text)
    return found


def write_defaults(server: Server, name: str, primary_key: str, options: Mapping[str, str]) -> None:
    """Replace a collection's default search options.

    Args:
        server: A connected server.
        name: The collection.
        primary_key: Its primary key field.
        options: The options as text; empty to remove all.

    Raises:
        UnsupportedError: If this server has no place to store them.
        ServerError: If Milvus fails, or the login may not store them.
    """
    with milvus_errors(f"describe the collection {name!r}"):
        properties = server.client.describe_collection(name).get("properties") or {}
        indexes = server.client.list_indexes(name)
    wanted = {DEFAULTS_PREFIX + option: value for option, value in options.items()}
    # Milvus before 2.4.17 cannot remove a property
    emptied = {key: "" for key in properties if key.startswith(DEFAULTS_PREFIX) and key not in wanted}
    if DEFAULTS_INDEX in indexes:
        with milvus_errors(f"change the default options of {name!r}"):
            server.client.drop_index(name, DEFAULTS_INDEX)
    if not wanted and not any(properties[key] for key in emptied):
        return
    refusals, denied = [], False
    for write in (_in_properties, _in_index):
        try:
            refused = write(server, name, primary_key, {**emptied, **wanted})
        except (MilvusException, grpc.RpcError) as error:
            refused, denied = server_words(error), denied or is_denied(error)
        if refused is None:
            return
        refusals.append(refused)
    if denied:
        raise MissingRightsError(
            f"The login may not store default search options with the collection {name!r} ({'; '.join(refusals)})."
        )
    raise UnsupportedError(
        f"The server cannot store default search options with the collection {name!r} ({'; '.join(refusals)}); give "
        "the options with each search instead."
    )


def _in_properties(server: Server, name: str, _: str, values: Mapping[str, str]) -> str | None:
    """Write into the collection's properties; return the reason if they are not there."""
    server.client.alter_collection_properties(name, dict(values))
    there = server.client.describe_collection(name).get("properties") or {}
    if any(there.get(key, "") != value for key, value in values.items()):
        return "properties are dropped"
    emptied = [key for key, value in values.items() if not value and key in there]
    if emptied:
        with contextlib.suppress(MilvusException, grpc.RpcError):  # an empty property counts as none
            server.client.drop_collection_properties(name, emptied)
    return None


def _in_index(server: Server, name: str, primary_key: str, values: Mapping[str, str]) -> str | None:
    """Write into a scalar index's parameters; return the reason if they are not there."""
    index = server.client.prepare_index_params()
    index.add_index(primary_key, index_type="INVERTED", index_name=DEFAULTS_INDEX, params=dict(values))
    server.client.create_index(name, index, sync=False)  # no search reads it: nothing to wait for
    there = server.client.describe_index(name, DEFAULTS_INDEX)
    return None if all(there.get(key, "") == value for key, value in values.items()) else "parameters are dropped"
