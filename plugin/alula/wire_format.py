"""The wire format of protobuf: whole numbers and kinds of field."""

from __future__ import annotations

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # the lowest three bits of a field's tag


def varint(data: bytes, offset: int) -> tuple[int, int]:
    """Read a varint at an offset; returns it and the offset after it.

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
