"""Bound the memory that a protobuf message takes when it is parsed.

An empty message in a message takes two bytes in a file and some hundred in memory, and a whole number one and eight.
So a file of 50 MB could take gigabytes before any check of the graph. The fields are counted first, without parsing.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from alula.errors import EncoderError
from alula.wire_format import BYTES, FIXED32, FIXED64, VARINT, varint

MAX_FIELDS = 1_000_000  # a transformer of 24 layers has some 50,000
MAX_PACKED = 64 << 20  # bytes of whole numbers, each of one byte or more; weights are in raw bytes
_FIELD = FieldDescriptor
_WHOLE = (_FIELD.TYPE_INT64, _FIELD.TYPE_INT32, _FIELD.TYPE_UINT64, _FIELD.TYPE_UINT32, _FIELD.TYPE_ENUM)


def check_fields(data: bytes, descriptor: Any, most: int = MAX_FIELDS) -> None:
    """Count the fields of a message and of the messages in it.

    Args:
        data: The serialised message.
        descriptor: Its protobuf descriptor.
        most: The most fields.

    Raises:
        EncoderError: If there are more, or if the bytes are no message; the message does not name the file.
    """
    todo = [(descriptor, 0, len(data))]
    count = packed = 0
    while todo:
        message, at, end = todo.pop()
        inner = {field.number: field.message_type for field in message.fields if field.message_type}
        whole = {field.number for field in message.fields if field.type in _WHOLE}
        while at < end:
            count += 1
            if count > most:
                raise EncoderError(f"it has more than {most:,} fields, and would take too much memory")
            tag, at = _varint(data, at, end)
            kind = tag & 7
            if kind == VARINT:
                _, at = _varint(data, at, end)
            elif kind == BYTES:
                length, at = _varint(data, at, end)
                if tag >> 3 in inner:
                    todo.append((inner[tag >> 3], at, min(at + length, end)))
                packed += length if tag >> 3 in whole else 0
                if packed > MAX_PACKED:
                    raise EncoderError("it has too many whole numbers that are not in 'raw_data'; export it again")
                at += length
            elif kind in (FIXED32, FIXED64):
                at += 4 if kind == FIXED32 else 8
            else:
                raise EncoderError("it is not an ONNX file, or it is truncated")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    try:
        value, after = varint(data, at)
    except IndexError:
        after = end + 1
    if after > end:
        raise EncoderError("it is not an ONNX file, or it is truncated")
    return value, after
