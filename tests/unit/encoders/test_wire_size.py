"""Files that take far more memory than they have bytes: refused before they are parsed."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from alula.encoders import load_encoder, wire_size
from alula.encoders.wire_size import check_fields
from alula.errors import EncoderError
from tests.tiny_encoders import write_drq

MODEL = onnx.ModelProto.DESCRIPTOR


def fields_of(message):
    """The fields of a message and of those in it, counted by protobuf; packed numbers are one field."""
    count = 0
    for field, value in message.ListFields():
        one_each = field.is_repeated and not (field.has_options and field.GetOptions().packed)
        values = value if field.is_repeated else [value]
        count += len(values) if one_each else 1
        if field.message_type:
            count += sum(map(fields_of, values))
    return count


def test_fields_are_counted_as_protobuf_does(tmp_path):
    data = write_drq(tmp_path / "e.onnx").path.read_bytes()
    count = fields_of(onnx.ModelProto.FromString(data))
    assert count > 100
    check_fields(data, MODEL, count)
    with pytest.raises(EncoderError, match="more than"):
        check_fields(data, MODEL, count - 1)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_many_empty_messages(depth):
    """In the graph, in a node of it, or in an attribute of a node."""
    with pytest.raises(EncoderError, match="it has more than 10,000 fields"):
        check_fields(empty_messages(11_000, depth), MODEL, 10_000)


def test_a_file_of_many_empty_messages(tmp_path):
    path = tmp_path / "many.onnx"
    path.write_bytes(empty_messages(1_100_000, 0))
    with pytest.raises(EncoderError, match=r"many\.onnx: it has more than 1,000,000 fields"):
        load_encoder(path)


def empty_messages(count, depth):
    """A model with the messages in its graph, in a node of it, or in an attribute of a node."""
    content = (b"\x0a\x00", b"\x2a\x00", b"\x52\x00")[depth] * count
    for tag in (0x2A, 0x0A)[2 - depth :]:
        content = bytes([tag]) + varint(len(content)) + content
    return b"\x3a" + varint(len(content)) + content


def varint(number):
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def test_many_small_whole_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(wire_size, "MAX_PACKED", 1000)
    numbers = helper.make_tensor("numbers", onnx.TensorProto.INT64, [1001], [1] * 1001)
    model = helper.make_model(helper.make_graph([], "g", [], [], [numbers]))
    with pytest.raises(EncoderError, match="too many whole numbers"):
        check_fields(model.SerializeToString(), MODEL)
    numbers = helper.make_tensor("numbers", onnx.TensorProto.INT64, [1001], b"\1" * 8008, raw=True)
    model = helper.make_model(helper.make_graph([], "g", [], [], [numbers]))
    check_fields(model.SerializeToString(), MODEL)
