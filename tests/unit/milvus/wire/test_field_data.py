"""Columns of every type are put into another order and joined as their rows say."""

from __future__ import annotations

import numpy as np
import pytest
from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from alula.errors import DataError, UsageError
from alula.milvus.wire.field_data import column, float_vectors, join, take, vectors

RNG = np.random.default_rng(0)
FLOATS = RNG.normal(size=(5, 8)).astype(np.float32)
ORDER = [4, 0, 0, 2]


def scalars(kind, values, data_type, **extra):
    field = schema_pb2.FieldData(field_name="f", type=data_type, **extra)
    getattr(field.scalars, kind).data.extend(values)
    return field


def flat(name, payload, data_type, dim=8):
    field = schema_pb2.FieldData(field_name="f", type=data_type)
    field.vectors.dim = dim
    setattr(field.vectors, name, payload)
    return field


def arrays(rows):
    field = schema_pb2.FieldData(field_name="f", type=DataType.ARRAY)
    field.scalars.array_data.element_type = DataType.FLOAT
    for row in rows:
        field.scalars.array_data.data.add().float_data.data.extend(row)
    return field


SCALARS = [
    ("bool_data", [True, False, True, True, False], DataType.BOOL),
    ("int_data", [1, 2, 3, 4, 5], DataType.INT32),
    ("long_data", [1 << 40, -2, 3, 4, 5], DataType.INT64),
    ("float_data", [0.5, 1.5, 2.5, 3.5, 4.5], DataType.FLOAT),
    ("double_data", [0.1, 0.2, 0.3, 0.4, 0.5], DataType.DOUBLE),
    ("string_data", list("abcde"), DataType.VARCHAR),
    ("json_data", [b'{"a": %d}' % i for i in range(5)], DataType.JSON),
]


@pytest.mark.parametrize(("kind", "values", "data_type"), SCALARS)
def test_scalars(kind, values, data_type):
    field = scalars(kind, values, data_type, field_id=7)
    taken = take(field, ORDER)
    assert list(getattr(taken.scalars, kind).data) == [values[i] for i in ORDER]
    assert (taken.field_name, taken.type, taken.field_id) == ("f", data_type, 7)
    assert list(column(join([field, taken]))) == [*values, *(values[i] for i in ORDER)]


@pytest.mark.parametrize("compact", [False, True])
def test_values_that_are_not_there(compact):
    valid = [True, False, True, False, True]
    values = [10, 30, 50] if compact else [10, 0, 30, 0, 50]
    field = scalars("long_data", values, DataType.INT64, valid_data=valid)
    taken = take(field, [4, 1, 0])
    assert list(taken.valid_data) == [True, False, True]
    assert list(taken.scalars.long_data.data) == ([50, 10] if compact else [50, 0, 10])


def test_a_newer_part_that_may_say_which_values_are_null():
    """Where the protocol of an older version says it too, that counts; else the values cannot be told from nulls."""
    field = scalars("long_data", [10, 0, 30], DataType.INT64)
    field.scalars.MergeFromString(bytes([0x8A, 0x01, 3, 1, 0, 1]))  # field 17: true, false, true
    with pytest.raises(UsageError, match=r"The values of 'f' come with a part that is newer"):
        take(field, [0, 1])
    field.valid_data.extend([True, False, True])
    assert list(take(field, [1, 2]).valid_data) == [False, True]


def test_newer_parts_of_arrays_are_kept():
    """Each row's array is a message of its own."""
    field = arrays([[1.0], [2.0]])
    field.scalars.array_data.data[1].MergeFromString(bytes([0x8A, 0x01, 1, 0]))
    assert take(field, [1]).scalars.array_data.data[0] == field.scalars.array_data.data[1]


def test_float_vectors():
    field = float_vectors("f", FLOATS, 3)
    assert np.array_equal(column(field), FLOATS)
    assert np.array_equal(column(take(field, ORDER)), FLOATS[ORDER])
    assert np.array_equal(column(join([field, take(field, ORDER)])), np.concatenate([FLOATS, FLOATS[ORDER]]))
    assert len(column(take(field, []))) == 0


def test_half_precision_is_widened():
    assert np.array_equal(
        vectors(flat("float16_vector", FLOATS.astype("<f2").tobytes(), DataType.FLOAT16_VECTOR)),
        FLOATS.astype(np.float16).astype(np.float32),
    )
    upper = (FLOATS.view("<u4") >> 16).astype("<u2")
    found = vectors(flat("bfloat16_vector", upper.tobytes(), DataType.BFLOAT16_VECTOR))
    assert np.array_equal(found, (upper.astype("<u4") << 16).view("<f4"))


@pytest.mark.parametrize(
    ("name", "data_type", "width"),
    [
        ("binary_vector", DataType.BINARY_VECTOR, 1),
        ("float16_vector", DataType.FLOAT16_VECTOR, 16),
        ("bfloat16_vector", DataType.BFLOAT16_VECTOR, 16),
        ("int8_vector", DataType.INT8_VECTOR, 8),
    ],
)
def test_vectors_of_bytes(name, data_type, width):
    payload = bytes(range(5 * width))
    field = flat(name, payload, data_type)
    rows = [payload[i * width : (i + 1) * width] for i in range(5)]
    taken = take(field, ORDER)
    assert getattr(taken.vectors, name) == b"".join(rows[i] for i in ORDER)
    assert getattr(join([field, taken, taken]).vectors, name) == payload + 2 * b"".join(rows[i] for i in ORDER)


def test_sparse_vectors():
    field = schema_pb2.FieldData(field_name="f", type=DataType.SPARSE_FLOAT_VECTOR)
    field.vectors.dim = field.vectors.sparse_float_vector.dim = 100
    contents = [bytes([i]) * 8 * i for i in range(5)]
    field.vectors.sparse_float_vector.contents.extend(contents)
    assert list(take(field, ORDER).vectors.sparse_float_vector.contents) == [contents[i] for i in ORDER]


@pytest.mark.parametrize("width", [1, 8, 384, 5000])
def test_arrays_of_floats_are_read_as_vectors(width):
    rows = RNG.normal(size=(7, width)).astype(np.float32)
    assert np.array_equal(column(arrays(rows)), rows)
    assert np.array_equal(column(take(arrays(rows), [6, 1])), rows[[6, 1]])


def test_what_makes_no_vectors_is_refused():
    with pytest.raises(DataError, match="not all of one length"):
        column(arrays([[1.0, 2.0], [1.0]]))
    ragged = float_vectors("f", FLOATS)
    ragged.vectors.dim = 7
    with pytest.raises(DataError, match="not all of one length"):
        vectors(ragged)
    ragged.vectors.dim = 0
    with pytest.raises(DataError, match="empty"):
        vectors(ragged)
    with pytest.raises(UsageError, match="takes float vectors"):
        vectors(flat("int8_vector", b"12345678", DataType.INT8_VECTOR))
    with pytest.raises(UsageError, match="cannot be read"):
        take(schema_pb2.FieldData(field_name="f", type=DataType.ARRAY), [])
