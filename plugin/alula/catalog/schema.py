"""The scalar fields of a collection: their names, their types, and checked values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alula.errors import UsageError
from alula.milvus.wire.types import ARROW_TYPES

Values: TypeAlias = "list[object] | npt.NDArray[Any]"

MAX_VARCHAR = 65535  # Milvus's longest VARCHAR, in bytes of UTF-8
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

    def convert(self, column: pa.Array) -> tuple[Values, dict[int, str]]:
        """Convert a source's column to the values that Milvus takes.

        Returns:
            The values (n,), with placeholders for the bad ones, and the reason of each bad one by position.
        """
        bad = dict.fromkeys(_positions(column.is_null()), f"no value in {self.name!r}") if column.null_count else {}
        try:
            values = column.cast(ARROW_TYPES[self.data_type])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            values = self._cast_each(column, bad)
        if self.data_type == "VARCHAR":
            size = pc.binary_length(values)
            for i in _positions(pc.greater(size, self.max_length)):
                bad[i] = f"{size[i]} bytes in {self.name!r}, which takes at most {self.max_length}"
        if values.null_count:
            values = values.fill_null("" if self.data_type == "VARCHAR" else pa.scalar(0).cast(values.type))
        if self.data_type in ("VARCHAR", "BOOL"):
            return values.to_pylist(), bad
        return values.to_numpy(zero_copy_only=False), bad

    def _cast_each(self, column: pa.Array, bad: dict[int, str]) -> pa.Array:
        values = []
        for i, value in enumerate(column):
            try:
                values.append(value.cast(ARROW_TYPES[self.data_type]).as_py())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, NotImplementedError):
                values.append(None)
                bad.setdefault(i, f"{_shown(value)} in {self.name!r}, which is {self.data_type}")
        return pa.array(values, ARROW_TYPES[self.data_type])


def _positions(mask: pa.Array) -> list[int]:
    """The positions where a boolean column is true."""
    found: list[int] = np.flatnonzero(mask.fill_null(False).to_numpy(zero_copy_only=False)).tolist()
    return found


def _shown(value: pa.Scalar) -> str:
    text = repr(value.as_py())
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_name(name: str, what: str) -> None:
    """Raise a `UsageError` for a name that Milvus rejects."""
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
