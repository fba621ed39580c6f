"""Write values into Milvus filter expressions."""

from __future__ import annotations

from collections.abc import Iterable


def literal(value: int | str) -> str:
    r"""A primary key as a literal of Milvus's expression language.

    Both engines undo ``\\`` and ``\"``. Only line breaks must be escaped, since the grammar allows none inside a
    string; Milvus Lite 2.5 does not undo any other escape, so everything else is written as it is.
    """
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
        return f'"{escaped}"'
    return str(int(value))


def any_of(field: str, values: Iterable[int | str]) -> str:
    """The expression that is true of rows whose field has one of the values."""
    return f"{field} in [{', '.join(map(literal, values))}]"
