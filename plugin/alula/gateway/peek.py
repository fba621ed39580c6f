"""Read which collection a request is about without reading the rest of it: inserts are long, and most are passed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class NameFields:
    """The numbers of a request's fields that say what it is about; 0 where it has none.

    Args:
        database: Of ``db_name``.
        collection: Of ``collection_name``.
    """

    database: int
    collection: int

    @classmethod
    def of(cls, descriptor: Any) -> NameFields:
        """The fields of a message."""
        numbers = {field.name: field.number for field in descriptor.fields}
        return cls(numbers.get("db_name", 0), numbers.get("collection_name", 0))


def peek(request: bytes, fields: NameFields) -> tuple[str, str]:
    """Database and collection of a request, "" where they are not told or the request cannot be read.

    Protobuf writes fields in the order of their numbers, and these are low; so nearly always the first few bytes do.
    """
    found = {fields.database: "", fields.collection: ""}
    place, end = 0, len(request)
    try:
        while place < end:
            tag, place = varint(request, place)
            number, kind = tag >> 3, tag & 7
            if number > fields.collection and found[fields.collection]:
                break
            if kind == _BYTES:
                length, place = varint(request, place)
                if number in found:
                    found[number] = request[place : place + length].decode()
                place += length
            elif kind == _VARINT:
                _, place = varint(request, place)
            elif kind in (_FIXED64, _FIXED32):
                place += 8 if kind == _FIXED64 else 4
            else:
                break
    except (IndexError, UnicodeDecodeError):
        return "", ""
    return found[fields.database] if fields.database else "", found[fields.collection] if fields.collection else ""


def varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of protobuf's at a place, and the place after it.

    Raises:
        IndexError: If the bytes end before it does.
    """
    value, shift = 0, 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            return value, place
        shift += 7
