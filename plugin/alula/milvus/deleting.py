"""Delete rows by id, where servers differ."""

from __future__ import annotations

from collections.abc import Sequence

from alula.errors import ServerError
from alula.milvus.connection import Server, milvus_errors
from alula.milvus.expressions import any_of


def deletable(server: Server, id_: int | str) -> bool:
    """Whether a row can be deleted (and so replaced) at all.

    Milvus Lite 2.5 puts ids unescaped between single quotes into SQL: a delete of an id that holds one fails or, worse,
    deletes other rows.
    """
    return not (server.embedded and isinstance(id_, str) and "'" in id_)


def delete_rows(server: Server, name: str, key: str, ids: Sequence[int | str]) -> None:
    """Delete rows by id.

    Args:
        server: Where.
        name: The collection.
        key: Name of its primary key field.
        ids: The rows; those that are not there are passed over.

    Raises:
        ServerError: If Milvus fails, or a row is not `deletable`.
    """
    for id_ in ids:
        if not deletable(server, id_):
            raise ServerError(
                f"Milvus Lite can neither delete nor replace the row with the id {id_!r}, because of the single quote "
                "in it; drop the collection and load it anew, or use a Milvus server."
            )
    with milvus_errors(f"delete rows of {name!r}"):
        for start in range(0, len(ids), 1000):  # keeps the expression far below the server's limit
            server.client.delete(name, filter=any_of(key, ids[start : start + 1000]))
