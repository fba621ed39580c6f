"""JSON documents in UTF-8, exact: a number stays as it is written."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Container, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

DOCUMENT = pa.large_binary()  # the Arrow type of a column of documents; texts of a file may be anything


class Literal(str):
    """A number in JSON, as it is written."""

    __slots__ = ()


def read_json(text: str | bytes) -> Any:
    """A value of JSON, with numbers as `Literal`.

    Raises:
        ValueError: If the text is no JSON, or NaN or infinite numbers are in it.
        RecursionError: If it is nested too deeply.
    """
    return _EXACT.decode(text.decode() if isinstance(text, bytes) else text)


def read_members(line: bytes, names: Container[str]) -> dict[str, Any]:
    """Some members of a JSON object, with numbers as `Literal`.

    Args:
        line: The object.
        names: The members; the numbers of others, such as a vector, cost a quarter of the time.

    Raises:
        ValueError: If it is no JSON object.
        RecursionError: If it is nested too deeply.
    """
    text = line.decode()
    found: dict[str, Any] = {}
    at = _behind(text, 0, "{")
    empty = text.startswith("}", at)
    while not empty:
        if not text.startswith('"', at):
            raise ValueError(_NO_OBJECT)
        name, at = _PLAIN.raw_decode(text, at)
        value, at = (_EXACT if name in names else _PLAIN).raw_decode(text, _behind(text, at, ":"))
        if name in names:
            found[name] = value
        at = _skip(text, at)
        if not text.startswith(",", at):
            break
        at = _behind(text, at, ",")
    if _behind(text, at, "}") < len(text):
        raise ValueError(_NO_OBJECT)
    return found


def _skip(text: str, at: int) -> int:
    """The position behind spaces."""
    spaces = _SPACE.match(text, at)
    return spaces.end() if spaces else at


def _behind(text: str, at: int, mark: str) -> int:
    """The position behind a mark and the spaces around it."""
    at = _skip(text, at)
    if not text.startswith(mark, at):
        raise ValueError(_NO_OBJECT)
    return _skip(text, at + 1)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


_NO_OBJECT = "a line that is no JSON object"
_SPACE = re.compile(r"[ \t\n\r]*")
# for values that are only checked: float takes integers of any length
_PLAIN = json.JSONDecoder(parse_int=float, parse_constant=_refuse)
_EXACT = json.JSONDecoder(parse_float=Literal, parse_int=Literal, parse_constant=_refuse)


def json_text(value: Any) -> str:
    """A value as JSON; times become texts in ISO 8601.

    Raises:
        ValueError: If JSON has no form for it.
        RecursionError: If it is nested too deeply.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Literal):
        return str(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(key)}: {json_text(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(json_text, value))}]"
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        value = value.isoformat()
    if isinstance(value, Decimal) and value.is_finite():
        return f"{value:f}"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number of JSON")
    if value is None or isinstance(value, str | int | float):
        return json.dumps(value, ensure_ascii=False)
    raise ValueError(f"{shown(repr(value))} has no form in JSON")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return json.dumps(key, ensure_ascii=False)
    raise ValueError(f"the key {key!r} is no string")


def value_documents(column: pa.Array) -> tuple[list[bytes | None], dict[int, str]]:
    """The values of a column as JSON documents: a text becomes a string of JSON.

    Args:
        column: Values of any type; those of `DOCUMENT` are documents already.

    Returns:
        The documents, None for missing and impossible ones, and the reasons of the impossible ones by position.
    """
    if column.type == DOCUMENT:
        return _each(column.to_pylist(), _checked)
    values = column.to_pylist()
    if pa.types.is_map(column.type):
        values = [None if value is None else dict(value) for value in values]
    return _each(values, lambda value: json_text(value).encode())


def parsed_documents(column: pa.Array) -> tuple[list[bytes | None], dict[int, str]]:
    """The JSON documents that a column of texts contains; else as `value_documents`."""
    texts = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(texts) or pa.types.is_large_string(texts) or pa.types.is_binary(texts)):
        return value_documents(column)
    return _each(column.to_pylist(), _checked)


def _checked(text: str | bytes) -> bytes:
    _PLAIN.decode(text if isinstance(text, str) else text.decode())
    return text.encode() if isinstance(text, str) else text


def _each(values: list[Any], convert: Callable[[Any], bytes]) -> tuple[list[bytes | None], dict[int, str]]:
    found: list[bytes | None] = []
    bad: dict[int, str] = {}
    for i, value in enumerate(values):
        document = None
        if value is not None:
            try:
                document = convert(value)
            except json.JSONDecodeError as error:
                bad[i] = f"{shown(repr(value))} is no JSON ({error.msg})"
            except ValueError as error:
                bad[i] = str(error)
            except RecursionError:
                bad[i] = "JSON that is nested too deeply"
        found.append(document)
    return found, bad


def shown(text: str, most: int = 60) -> str:
    """A text for a message, cut to a length."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
