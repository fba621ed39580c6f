"""Read the names in a request without parsing long inserts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_FIELDS = 4096  # to pass over; more are left to a parser
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class NameFields:
    """Field numbers of the names in a request; 0 if it has no such field.

    Args:
        database: Number of ``db_name``.
        collection: Number of ``collection_name``.
    """

    database: int
    collection: int

    @classmethod
    def of(cls, descriptor: Any) -> NameFields:
        """Look up the fields of a message type."""
        numbers = {field.name: field.number for field in descriptor.fields}
        return cls(numbers.get("db_name", 0), numbers.get("collection_name", 0))


def peek(request: bytes, fields: NameFields) -> tuple[str, str]:
    """Database and collection of a request, "" if absent or unreadable.

    Of a field that is there twice the last value counts, as for Milvus, so all fields are passed. A request of more
    than `MAX_FIELDS` counts as unreadable.
    """
    found = {fields.database: "", fields.collection: ""}
    offset, end = 0, len(request)
    try:
        for _ in range(MAX_FIELDS):
            if offset >= end:
                break
            tag, offset = varint(request, offset)
            number, wire_type = tag >> 3, tag & 7
            if wire_type == _BYTES:
                length, offset = varint(request, offset)
                if number in found:
                    found[number] = request[offset : offset + length].decode()
                offset += length
            elif wire_type == _VARINT:
                _, offset = varint(request, offset)
            elif wire_type in (_FIXED64, _FIXED32):
                offset += 8 if wire_type == _FIXED64 else 4
            else:
                return "", ""
        else:
            return "", ""
    except (IndexError, UnicodeDecodeError):
        return "", ""
    return found[fields.database] if fields.database else "", found[fields.collection] if fields.collection else ""


def varint(data: bytes, offset: int) -> tuple[int, int]:
    """Read a varint of protobuf at an offset; returns it and the offset after it.

    Raises:
        IndexError: If the bytes end within the varint.
    """
    value, shift = 0, 0
    while True:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            return value, offset
        shift += 7
