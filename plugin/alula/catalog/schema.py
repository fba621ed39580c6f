"""The scalar fields of a collection: their names, their types, and checked values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alula.errors import UsageError
from alula.index_types import FieldSpec
from alula.milvus.wire.types import ARROW_TYPES, ELEMENT_TYPES, TYPES, field_spec
from alula.sources.columns import is_vector
from alula.sources.declared_types import DYNAMIC, json_value
from alula.sources.json_values import json_text, parsed_documents, read_json, shown, value_documents

Values: TypeAlias = "list[object] | npt.NDArray[Any]"

MAX_VARCHAR = 65535  # Milvus's longest VARCHAR, in bytes of UTF-8
MAX_JSON = 65536  # Milvus's longest JSON document, in bytes of UTF-8
MAX_CAPACITY = 4096  # of Milvus's longest ARRAY, in elements
NULLABLE = "nullable"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_FIELD = re.compile(rf"[^:]*:([^:]*)(:\s*{NULLABLE}\s*)?(?::\s*default=(.*))?", re.IGNORECASE | re.DOTALL)
_TYPE = re.compile(r"ARRAY<([A-Z0-9]+)(?:\((\d+)\))?>(?:\((\d+)\))?|([A-Z0-9]+)(?:\((\d+)\))?")


@dataclass(frozen=True)
class ScalarField:
    """A scalar field of a collection.

    Args:
        name: Its name.
        data_type: A key of `ARROW_TYPES`, or ``ARRAY``.
        max_length: Of a VARCHAR, or of an array's, in bytes of UTF-8.
        element_type: The type of an array's elements.
        max_capacity: The most elements of an array.
        nullable: True if rows may have no value.
        default: The value of rows without one; None without a default.
    """

    name: str
    data_type: str
    max_length: int = MAX_VARCHAR
    element_type: str | None = None
    max_capacity: int = MAX_CAPACITY
    nullable: bool = False
    default: Any = None

    def __str__(self) -> str:
        kind = self.element_type or self.data_type
        kind += f"({self.max_length})" if kind == "VARCHAR" else ""
        kind = f"ARRAY<{kind}>({self.max_capacity})" if self.element_type else kind
        default = "" if self.default is None else f":default={self._default_text}"
        return f"{self.name}:{kind}" + (f":{NULLABLE}" if self.nullable else "") + default

    @classmethod
    def parse(cls, text: str) -> ScalarField:
        """Read ``name:TYPE``; ``:nullable`` and ``:default=VALUE`` may follow.

        Types with numbers are ``VARCHAR(64)`` and ``ARRAY<VARCHAR(64)>(16)``: at most 16 texts of at most 64 bytes.

        Raises:
            UsageError: If the name is no field name, there is no such type, or the default is no value of it.
        """
        name = text.partition(":")[0]
        check_name(name, "field")
        parts = _FIELD.fullmatch(text)
        match = _TYPE.fullmatch(parts[1].strip().upper()) if parts else None
        kinds = ", ".join(kind for kind in ARROW_TYPES if kind != "VARCHAR")
        wrong = UsageError(
            f"{text!r} is not NAME:TYPE with one of the types {kinds}, VARCHAR(n), ARRAY<TYPE>(n); ':{NULLABLE}' and "
            "':default=VALUE' may follow."
        )
        if parts is None or match is None:
            raise wrong
        element, element_length, capacity, kind, length = match.groups()
        scalar = element or kind
        if scalar not in (ELEMENT_TYPES if element else ARROW_TYPES):
            raise wrong
        if (element_length or length) and scalar != "VARCHAR":
            raise wrong
        max_length, max_capacity = int(element_length or length or MAX_VARCHAR), int(capacity or MAX_CAPACITY)
        if not 1 <= max_length <= MAX_VARCHAR:
            raise UsageError(
                f"VARCHAR({max_length}) is not possible in {text!r}; Milvus takes 1 to {MAX_VARCHAR} bytes."
            )
        if not 1 <= max_capacity <= MAX_CAPACITY:
            raise UsageError(f"{text!r} has {max_capacity} elements; Milvus takes 1 to {MAX_CAPACITY}.")
        field = cls(name, kind or "ARRAY", max_length, element, max_capacity, nullable=bool(parts[2]))
        return field if parts[3] is None else replace(field, default=field._parsed_default(parts[3]))

    @classmethod
    def infer(cls, name: str, arrow_type: pa.DataType) -> ScalarField | None:
        """The field for a file's column, None when Milvus has no scalar type for it.

        A list of floats is None: it may be a vector.
        """
        known = {kind: data_type for data_type, kind in ARROW_TYPES.items()}
        listed = pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type)
        element = known.get(_stored(arrow_type.value_type)) if listed else None
        if element in ELEMENT_TYPES and element not in ("FLOAT", "DOUBLE"):
            check_name(name, "field")
            return cls(name, "ARRAY", element_type=element)
        nested = pa.types.is_struct(arrow_type) or pa.types.is_map(arrow_type) or (listed and not is_vector(arrow_type))
        data_type = "JSON" if nested else known.get(_stored(arrow_type))
        if data_type is None:
            return None
        check_name(name, "field")
        return cls(name, data_type)

    @property
    def _default_text(self) -> str:
        return str(self.default).lower() if self.data_type == "BOOL" else str(self.default)

    def _parsed_default(self, text: str) -> Any:
        if self.data_type not in ARROW_TYPES or self.data_type == "JSON":
            raise UsageError(f"{self} can have no default; Milvus has them for numbers, booleans and VARCHAR.")
        try:
            value: Any = pa.scalar(text).cast(self.arrow).as_py()
        except pa.ArrowInvalid:
            value = None
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            raise UsageError(f"{self} cannot have the default {text!r}, which is no {self.data_type}.")
        if len(text.encode()) > self.max_length:
            raise UsageError(f"{self} cannot have a default of {len(text.encode())} bytes.")
        return value

    @property
    def writable(self) -> bool:
        """True if Alula can write and read its values."""
        return (self.element_type or self.data_type) in (ELEMENT_TYPES if self.element_type else ARROW_TYPES)

    @property
    def optional(self) -> bool:
        """True if a source may lack the value, or the column."""
        return self.nullable or self.default is not None

    @property
    def plain(self) -> bool:
        """True if each row has one number, boolean or text."""
        return self.data_type not in ("JSON", "ARRAY") and not self.nullable

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type of its values: lists for arrays, documents for JSON."""
        return TYPES[self.data_type].arrow_type(element_type=self.element_type or "")

    @property
    def spec(self) -> FieldSpec:
        """The field for writing: its type, with its parameters in Milvus."""
        params: dict[str, Any] = {}
        if "VARCHAR" in (self.data_type, self.element_type):
            params["max_length"] = self.max_length
        if self.element_type:
            params |= {"element_type": self.element_type, "max_capacity": self.max_capacity}
        if self.nullable:
            params["nullable"] = True
        if self.default is not None:
            params["default_value"] = self.default
        return field_spec(self.name, self.data_type, **params)

    def convert(self, column: pa.Array) -> tuple[Values, dict[int, str]]:
        """Convert a source's column to the values that Milvus takes.

        Returns:
            The values (n,), with placeholders for the bad ones and the default (None without one) for rows without a
            value in an optional field, and the reason of each bad one by position.
        """
        missing = _positions(column.is_null()) if column.null_count else []
        bad = {} if self.optional else dict.fromkeys(missing, f"no value in {self.name!r}")
        values: Values
        if self.data_type == "JSON":
            values = self._documents(column, bad)
        elif self.element_type:
            values = self._lists(column, bad)
        else:
            values = self._scalars(column, bad)
        if self.optional and missing:
            values = list(values)
            for i in missing:
                values[i] = self.default
        return values, bad

    def _scalars(self, column: pa.Array, bad: dict[int, str]) -> Values:
        try:
            values = column.cast(self.arrow)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            values = self._cast_each(column, bad)
        if self.data_type == "VARCHAR":
            size = pc.binary_length(values)
            for i in _positions(pc.greater(size, self.max_length)):
                bad[i] = f"{size[i]} bytes in {self.name!r}, which takes at most {self.max_length}"
        if values.null_count:
            values = values.fill_null("" if self.data_type == "VARCHAR" else pa.scalar(0).cast(values.type))
        if self.data_type in ("VARCHAR", "BOOL"):
            found: list[object] = values.to_pylist()
            return found
        numbers: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return numbers

    def _documents(self, column: pa.Array, bad: dict[int, str]) -> list[object]:
        documents = self._parsed(column, bad)
        for i, document in enumerate(documents):
            if document is not None and len(document) > MAX_JSON:
                size = f"{len(document)} bytes of JSON"
                bad.setdefault(i, f"{size} in {self.name!r}, and Milvus takes at most {MAX_JSON}")
        return [document or b"{}" for document in documents]

    def _parsed(self, column: pa.Array, bad: dict[int, str]) -> list[bytes | None]:
        documents, wrong = parsed_documents(column)
        for i, reason in wrong.items():
            bad.setdefault(i, f"{reason} in {self.name!r}")
        return documents

    def _lists(self, column: pa.Array, bad: dict[int, str]) -> list[object]:
        """The lists of an ARRAY field; texts are read as JSON."""
        try:
            lists: list[Any] = column.cast(self.arrow).to_pylist()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            lists = self._read_each(column, bad)
        for i, values in enumerate(lists):
            if values is None:
                lists[i] = []
            elif None in values:
                bad.setdefault(i, f"a missing element in {self.name!r}")
            elif len(values) > self.max_capacity:
                bad.setdefault(i, f"{len(values)} elements in {self.name!r}, which takes at most {self.max_capacity}")
            elif self.element_type == "VARCHAR":
                size = max((len(text.encode()) for text in values), default=0)
                if size > self.max_length:
                    bad.setdefault(i, f"{size} bytes in {self.name!r}, whose elements take at most {self.max_length}")
        return lists

    def _read_each(self, column: pa.Array, bad: dict[int, str]) -> list[Any]:
        lists: list[Any] = []
        for i, document in enumerate(self._parsed(column, bad)):
            found = None
            try:
                found = None if document is None else json_value(read_json(document), self.arrow)
            except ValueError as error:
                bad.setdefault(i, f"{error} in {self.name!r}, which is {self.data_type}")
            lists.append(found)
        return lists

    def _cast_each(self, column: pa.Array, bad: dict[int, str]) -> pa.Array:
        values = []
        for i, value in enumerate(column):
            try:
                values.append(value.cast(self.arrow).as_py())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, NotImplementedError):
                values.append(None)
                bad.setdefault(i, f"{shown(repr(value.as_py()))} in {self.name!r}, which is {self.data_type}")
        return pa.array(values, self.arrow)


def fields_text(fields: Iterable[ScalarField], partition_key: str | None = None, *, dynamic: bool) -> str:
    """Fields with commas between; "" without any."""
    shown = [f"{field} (partition key)" if field.name == partition_key else str(field) for field in fields]
    return ", ".join([*shown, *(["any others (dynamic)"] if dynamic else [])])


def _positions(mask: pa.Array) -> list[int]:
    """The positions where a boolean column is true."""
    found: list[int] = np.flatnonzero(mask.fill_null(False).to_numpy(zero_copy_only=False)).tolist()
    return found


def _stored(arrow_type: pa.DataType) -> pa.DataType:
    """The Arrow type of Milvus's scalar for a type of the same values."""
    if pa.types.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    if pa.types.is_large_string(arrow_type):
        return pa.string()
    return pa.int64() if pa.types.is_unsigned_integer(arrow_type) else arrow_type


def dynamic_values(columns: Mapping[str, pa.Array], rows: int) -> tuple[list[bytes], dict[int, str]]:
    """Pack columns without a field into one JSON object per row, as Milvus does.

    Args:
        columns: The columns, each of length n; a column `DYNAMIC` contains such objects already. A missing value is no
            member of the object.
        rows: n.

    Returns:
        The objects (n,), and the reasons of the rows that have none, by position.
    """
    members: list[list[str]] = [[] for _ in range(rows)]
    bad: dict[int, str] = {}
    for name, column in columns.items():
        documents, wrong = parsed_documents(column) if name == DYNAMIC else value_documents(column)
        for i, reason in wrong.items():
            bad.setdefault(i, f"{reason} in the column {name!r}")
        for i, document in enumerate(documents):
            if document is None:
                continue
            text = document.decode().strip()
            if name != DYNAMIC:
                members[i].append(f"{json_text(name)}: {text}")
            elif text.startswith("{"):
                members[i].append(text[1:-1].strip())
            else:
                bad.setdefault(i, f"{shown(text)} in the column {name!r}, which holds JSON objects")
    objects = [f"{{{', '.join(filter(None, parts))}}}".encode() for parts in members]
    for i, found in enumerate(objects):
        if len(found) > MAX_JSON:
            bad.setdefault(i, f"{len(found)} bytes without a field, and Milvus takes at most {MAX_JSON} as JSON")
    return objects, bad


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
