"""The scalar fields of a collection: how a user names them, what a file's columns become, what a row must satisfy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from alula.errors import DataError, UsageError

MAX_VARCHAR = 65535  # Milvus's longest VARCHAR, in bytes of UTF-8
ARROW_TYPES: dict[str, pa.DataType] = {
    "BOOL": pa.bool_(),
    "INT8": pa.int8(),
    "INT16": pa.int16(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_TYPE = re.compile(r"([A-Za-z0-9]+)(?:\((\d+)\))?")


@dataclass(frozen=True)
class ScalarField:
    """A scalar field of a collection.

    Args:
        name: Its name.
        data_type: A key of `ARROW_TYPES`.
        max_length: Of a VARCHAR, in bytes of UTF-8.
    """

    name: str
    data_type: str
    max_length: int = MAX_VARCHAR

    def __str__(self) -> str:
        length = f"({self.max_length})" if self.data_type == "VARCHAR" else ""
        return f"{self.name}:{self.data_type}{length}"

    @classmethod
    def parse(cls, text: str) -> ScalarField:
        """Read ``name:TYPE`` or ``name:VARCHAR(64)``.

        Raises:
            UsageError: If the name is no field name or there is no such type.
        """
        name, _, type_text = text.partition(":")
        check_name(name, "field")
        match = _TYPE.fullmatch(type_text.strip().upper())
        if match is None or match[1] not in ARROW_TYPES or (match[2] and match[1] != "VARCHAR"):
            raise UsageError(f"{text!r} is not NAME:TYPE with one of the types {', '.join(ARROW_TYPES)}, VARCHAR(n).")
        max_length = int(match[2] or MAX_VARCHAR)
        if not 1 <= max_length <= MAX_VARCHAR:
            raise UsageError(
                f"VARCHAR({max_length}) is not possible in {text!r}; Milvus takes 1 to {MAX_VARCHAR} bytes."
            )
        return cls(name, match[1], max_length)

    @classmethod
    def infer(cls, name: str, arrow_type: pa.DataType) -> ScalarField | None:
        """The field for a file's column, None when Milvus has no scalar type for it."""
        if pa.types.is_dictionary(arrow_type):
            arrow_type = arrow_type.value_type
        if pa.types.is_large_string(arrow_type):
            arrow_type = pa.string()
        if pa.types.is_unsigned_integer(arrow_type):
            arrow_type = pa.int64()
        for data_type, known in ARROW_TYPES.items():
            if known == arrow_type:
                check_name(name, "field")
                return cls(name, data_type)
        return None

    def convert(self, column: pa.Array, start: int) -> list[object]:
        """A file's column as the values Milvus takes.

        Args:
            column: The values of some rows.
            start: Number of the first of these rows, for errors.

        Raises:
            DataError: If a value is missing, of another type, or too long; the message names row and column.
        """
        if column.null_count:
            row = start + column.is_null().to_pylist().index(True)
            raise DataError(f"Row {row} has no value in the column {self.name!r}; fill it or leave the row out.")
        try:
            values: list[object] = column.cast(ARROW_TYPES[self.data_type]).to_pylist()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"The column {self.name!r} ({column.type}) among the rows from {start} on does not fit {self}: {error}."
            ) from None
        if self.data_type == "VARCHAR":
            for i, value in enumerate(values):
                if len(str(value)) * 4 > self.max_length and len(str(value).encode()) > self.max_length:
                    raise DataError(
                        f"Row {start + i} has {len(str(value).encode())} bytes in {self.name!r}, which holds "
                        f"{self.max_length}; create the collection with a longer VARCHAR, or shorten the text."
                    )
        return values


def check_name(name: str, what: str) -> None:
    """Raise a `UsageError` unless Milvus would take the name."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a {what} name: use letters, digits and underscores, and no digit at the start."
        )


def check_distinct(names: Iterable[str]) -> None:
    """Raise a `UsageError` when a field is named twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"The field {name!r} is named twice.")
        seen.add(name)
