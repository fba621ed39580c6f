"""Write values into Milvus filter expressions, or send them beside a template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from alula.milvus.dialect import Dialect

# Parts of Milvus's messages about an expression that it cannot parse or run.
BAD_FILTER = (
    "cannot parse expression",
    "Invalid expr",
    "PhyFilterBitsNode",
    "failed to create query plan",
    "expr type check failed",
)
_PLACEHOLDER = "alula_ids"
Answer = TypeVar("Answer")


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


class IdTemplates:
    """Sends expressions on primary keys as templates, where a server has them.

    Milvus 2.4.17 and later parse a template once and take the keys as its values. A text with keys in it is another
    one each time: the proxy parses it, and keeps it in a cache of 1,024 expressions, from which it pushes the filters
    of other users. An older server is asked once, and gets texts from then on.
    """

    def __init__(self) -> None:
        self._supported = True

    def send(
        self,
        call: Callable[[str, Mapping[str, Sequence[int | str]]], Answer],
        key: str,
        ids: Sequence[int | str],
        filter: str = "",
        *,
        dialect: Dialect,
    ) -> Answer:
        """Make a call for the rows that have one of the keys and match a filter.

        Args:
            call: Sends an expression with the values of its placeholders.
            key: Name of the primary key field.
            ids: The keys.
            filter: Another condition on the rows; "" for none.
            dialect: The server's, which may be known to have no templates.
        """

        def all_of(expression: str) -> str:
            return f"({expression}) and ({filter})" if filter else expression

        if self._supported and dialect.templates:
            try:
                return call(all_of(f"{key} in {{{_PLACEHOLDER}}}"), {_PLACEHOLDER: ids})
            except Exception as error:
                if not any(words in str(error) for words in BAD_FILTER):
                    raise
            answer = call(all_of(any_of(key, ids)), {})
            self._supported = False  # it was the template and not the filter
            return answer
        return call(all_of(any_of(key, ids)), {})
