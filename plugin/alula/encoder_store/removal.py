"""Remove names and files from the encoder store of a database."""

from __future__ import annotations

from dataclasses import dataclass

from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from alula.catalog.settings import read_settings
from alula.encoder_store.entries import COLLECTION, Entry, find
from alula.encoder_store.rows import delete_file, flush, querying, remove_leftovers
from alula.errors import UsageError
from alula.milvus.connection import Server, milvus_errors
from alula.milvus.deleting import delete_rows


@dataclass(frozen=True)
class RemoveResult:
    """The outcome of a removal.

    Args:
        entry: The file, as it was in the store.
        names: The removed names.
        gone: True if the file was removed too; it stays while it has another name.
    """

    entry: Entry
    names: tuple[str, ...]
    gone: bool


def remove(server: Server, wanted: str, *, force: bool = False) -> RemoveResult:
    """Remove a name, and with the last name its file; or a file with all its names.

    Args:
        server: The connected server.
        wanted: A name; or a fingerprint as for `find`, to remove the file.
        force: Remove a file although collections were created with it.

    Raises:
        UsageError: If there is no such encoder, or a collection of the database was created with it.
        ServerError: If Milvus fails.
    """
    query = querying(server)
    entry = find(query, wanted)
    names = (wanted,) if wanted in entry.names else entry.names
    gone = set(names) == set(entry.names)
    if gone and not force:
        users = made_with(server, entry.sha256)
        if users:
            raise UsageError(
                f"The encoder {entry} is what these collections were made with: {', '.join(users)}. Drop or "
                "migrate them first, or give force=True."
            )
    rows = query('role == "name"', ["id", "data"])
    delete_rows(server, COLLECTION, "id", [row["id"] for row in rows if row["data"] in names])
    if gone:
        delete_file(server, query, entry.sha256)
    remove_leftovers(server, query, ())
    flush(server)
    return RemoveResult(entry, names, gone)


def made_with(server: Server, sha256: str) -> list[str]:
    """The collections that were created with an encoder, or have a function with it.

    Raises:
        ServerError: If Milvus fails.
    """
    users = []
    client = server.client
    with milvus_errors("list the collections that were created with an encoder"):
        for name in sorted(client.list_collections()):
            try:
                used = sha256 in _encoders_of(client, name)
            except MilvusException:
                if client.has_collection(name):
                    raise
                continue  # it was dropped since it was listed
            if used:
                users.append(name)
    return users


def _encoders_of(client: MilvusClient, name: str) -> set[str | None]:
    """The encoders that a collection's settings, indexes and functions name."""
    indexes = [client.describe_index(name, index) for index in client.list_indexes(name)]
    schema = client.describe_collection(name)
    kept = [read_settings((), field.get("description", ""))[1] for field in schema.get("fields", ())]
    kept += [read_settings(indexes, schema.get("description", ""))[1]]
    # a gateway shows an index or a function of Alula's instead of the stored settings
    shown = [*indexes, *(function.get("params", {}) for function in schema.get("functions", ()))]
    return {each.get("encoder") for each in (*kept, *shown)}
