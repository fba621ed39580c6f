"""The table of field types: what is written is read back, in the sizes that it says."""

from __future__ import annotations

import numpy as np
import pytest
from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from alula.errors import DataError
from alula.index_types import VECTOR_TYPES
from alula.milvus.wire.field_data import column, write_column
from alula.milvus.wire.types import TYPES, field_spec, type_of
from alula.milvus.wire.vectors import from_bfloat16, to_bfloat16, unfit_for_half

RNG = np.random.default_rng(0)
DIM = 16
FLOATS = RNG.standard_normal((5, DIM)).astype(np.float32)
BFLOATS = from_bfloat16(to_bfloat16(FLOATS))
DENSE = {
    "FLOAT_VECTOR": FLOATS,
    "FLOAT16_VECTOR": FLOATS.astype(np.float16).astype(np.float32),
    "BFLOAT16_VECTOR": BFLOATS,
    "BINARY_VECTOR": RNG.integers(0, 256, (5, DIM // 8), np.uint8),
    "ARRAY": FLOATS,
}


@pytest.mark.parametrize("name", TYPES)
def test_a_type_is_found_by_its_number(name):
    assert type_of(TYPES[name].number) is TYPES[name]
    assert TYPES[name].number == DataType[name]


def test_types_without_a_place_in_the_table():
    assert type_of(DataType.NONE) is None
    assert type_of(9999) is None


@pytest.mark.parametrize("name", DENSE)
def test_vectors_are_read_as_they_were_written(name):
    values = DENSE[name]
    params = {"element_type": "FLOAT", "max_capacity": DIM} if name == "ARRAY" else {"dim": DIM}
    data = schema_pb2.FieldData(field_name="f", type=DataType[name])
    write_column(data, values, field_spec("f", name, **params))
    found = column(data)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)
    if name != "ARRAY":
        assert data.vectors.dim == DIM
        assert field_spec("f", name, **params).bytes_per_row == len(TYPES[name].encode(values)) // len(values)


@pytest.mark.parametrize("name", VECTOR_TYPES)
def test_kept_vectors_have_the_bytes_of_their_type(name):
    assert VECTOR_TYPES[name] * DIM == TYPES[name].bytes_per_row(DIM)


def test_half_precision_takes_no_number_beyond_its_largest():
    largest = np.full((1, DIM), 65504, np.float32)
    assert np.array_equal(TYPES["FLOAT16_VECTOR"].decode(TYPES["FLOAT16_VECTOR"].encode(largest)), largest[0])
    for beyond in (largest * 1.01, -largest * 1.01):
        with pytest.raises(DataError, match="beyond 65,504"):
            TYPES["FLOAT16_VECTOR"].encode(beyond)


def test_half_precision_takes_no_vector_that_it_would_make_zero():
    kept = np.array([[0, 0, 0], [2e-9, 0, 1], [6.2e-5, 0, -1e-9], [0, -7e-5, 0]], np.float32)
    lost = np.array([[2e-8, 0, 0], [6e-5, 0, 1e-9], [0, -5e-5, 0]], np.float32)
    assert list(unfit_for_half(np.concatenate([kept, lost]))) == [4, 5, 6]
    # what a float16 holds in full: its relative error is at most 2^-11
    np.testing.assert_allclose(kept.astype(np.float16).max(axis=1), kept.max(axis=1), rtol=2**-11)
    with pytest.raises(DataError, match="no number as large as"):
        TYPES["FLOAT16_VECTOR"].encode(lost[0])


def test_bfloat16_rounds_to_the_nearest_ties_to_even():
    step = np.float32(2**-7)  # the distance of the bfloat16 numbers from 1 on
    given = np.array([1, 1 + step / 2, 1 + 3 * step / 2, 1 + step / 4, -(1 + 3 * step / 4), 0, 3e38], np.float32)
    want = np.array([1, 1, 1 + 2 * step, 1, -(1 + step), 0], np.float32)
    np.testing.assert_array_equal(from_bfloat16(to_bfloat16(given))[:-1], want)
    assert abs(from_bfloat16(to_bfloat16(given))[-1] / given[-1] - 1) < 2**-8
    np.testing.assert_array_equal(to_bfloat16(BFLOATS), to_bfloat16(FLOATS))


@pytest.mark.parametrize(("name", "size"), [("BOOL", 1), ("INT16", 2), ("INT64", 8), ("DOUBLE", 8), ("VARCHAR", 0)])
def test_bytes_of_scalars(name, size):
    assert field_spec("f", name).bytes_per_row == size
