"""Convert values of text formats to the types that fields declare.

A format without types leaves a reader to guess, and a guess rounds: one fraction in a column makes numbers of all its
integers, and those above 2**53 change. A declared type needs no guess.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from alula.sources.json_values import DOCUMENT, json_text, shown

# Milvus's name of the values without a field of their own; as a declared type, that of every column without another
DYNAMIC = "$meta"
_FRACTION = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d{1,3})?|[+-]?\.\d+([eE][+-]?\d{1,3})?")


def column_types(
    types: Mapping[str, pa.DataType] | None, mapping: Mapping[str, str] | None
) -> Mapping[str, pa.DataType]:
    """The declared types by column, from types by field and the mapping."""
    return {(mapping or {}).get(field, field): data_type for field, data_type in (types or {}).items()}


def whole_number(text: str) -> str:
    """Rewrite ``30.0`` and ``1e3`` as integers; other texts stay as they are."""
    text = text.strip()
    if _FRACTION.fullmatch(text):
        number = Decimal(text)
        if number == number.to_integral_value() and number.adjusted() < 20:
            return str(int(number))
    return text


def texts_of(values: Sequence[str], data_type: pa.DataType, missing: frozenset[str]) -> pa.Array:
    """A column of CSV texts for a declared type.

    Texts stay exact; missing values are null, unless the type is a string. The
    collection's own conversion turns them into values, and rejects misfits with their text.
    """
    if pa.types.is_string(data_type):
        return pa.array(values, pa.string())
    kept = [None if value in missing else value for value in values]
    if pa.types.is_integer(data_type):
        kept = [None if value is None else whole_number(value) for value in kept]
    return pa.array(kept, pa.string())


def json_value(value: Any, data_type: pa.DataType) -> Any:
    """A value of JSON, as `read_json` returns it, in a declared type.

    Raises:
        ValueError: If it does not fit.
        RecursionError: If it is nested too deeply.
    """
    if value is None or (isinstance(value, bool) and pa.types.is_boolean(data_type)):
        return value
    if data_type == DOCUMENT:
        return json_text(value).encode()
    if pa.types.is_list(data_type) and isinstance(value, list):
        return [json_value(element, data_type.value_type) for element in value]
    text = json_text(value) if isinstance(value, bool) else value
    if isinstance(text, str) and not (isinstance(value, bool) and not pa.types.is_string(data_type)):
        if pa.types.is_integer(data_type):
            text = whole_number(text)
        with contextlib.suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return pa.scalar(str(text)).cast(data_type).as_py()
    raise ValueError(f"{shown(json_text(value), 40)} is no {data_type}")
