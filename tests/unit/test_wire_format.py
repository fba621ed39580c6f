from __future__ import annotations

import pytest
from google.protobuf.wrappers_pb2 import UInt64Value

from alula.wire_format import VARINT, varint


@pytest.mark.parametrize("number", [1, 127, 128, 300, 2**32, 2**63, 2**64 - 1])
def test_numbers_are_read_as_protobuf_writes_them(number):
    data = UInt64Value(value=number).SerializeToString()
    tag, begin = varint(data, 0)
    assert (tag >> 3, tag & 7) == (1, VARINT)
    assert varint(data + b"more", begin) == (number, len(data))
    with pytest.raises(IndexError):
        varint(data[:-1], begin)


def test_a_number_without_an_end_is_not_read_forever():
    assert varint(b"\xff" * 1000, 0)[1] <= 11
