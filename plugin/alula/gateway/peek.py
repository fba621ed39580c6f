"""Read the names in a request without parsing long inserts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alula.wire_format import BYTES, FIXED32, FIXED64, VARINT, varint

MAX_FIELDS = 4096  # to pass over; more are left to a parser


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
            if wire_type == BYTES:
                length, offset = varint(request, offset)
                if number in found:
                    found[number] = request[offset : offset + length].decode()
                offset += length
            elif wire_type == VARINT:
                _, offset = varint(request, offset)
            elif wire_type in (FIXED64, FIXED32):
                offset += 8 if wire_type == FIXED64 else 4
            else:
                return "", ""
        else:
            return "", ""
    except (IndexError, UnicodeDecodeError):
        return "", ""
    return found[fields.database] if fields.database else "", found[fields.collection] if fields.collection else ""
