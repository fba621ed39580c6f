"""Delete rows by id."""

from __future__ import annotations

from collections.abc import Sequence

from alula.errors import ServerError
from alula.milvus.connection import Server, milvus_errors
from alula.milvus.expressions import any_of


def delete_rows(server: Server, name: str, key: str, ids: Sequence[int | str]) -> None:
    """Delete rows by id.

    Args:
        server: The connected server.
        name: The collection.
        key: Name of its primary key field.
        ids: The rows; absent ones are skipped.

    Raises:
        ServerError: If Milvus fails, or the server cannot delete a row with such an id (`Dialect.can_delete`).
    """
    for id_ in ids:
        if not server.dialect.can_delete(id_):
            raise ServerError(
                f"{server.dialect.name} can neither delete nor replace the row with the id {id_!r}, because of the "
                "single quote in it; drop the collection and load it again, or use a Milvus server."
            )
    with milvus_errors(f"delete rows of {name!r}"):
        for start in range(0, len(ids), 1000):  # keeps the expression far below the server's limit
            server.client.delete(name, filter=any_of(key, ids[start : start + 1000]))
