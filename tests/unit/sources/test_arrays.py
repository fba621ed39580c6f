"""Rows in memory as a source."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from alula.errors import DataError
from alula.sources import ArraySource
from tests.tiny_encoders import random_vectors


@pytest.mark.parametrize("size", [1, 3, 10, 11, 8192])
def test_batches_hold_all_rows_in_order(size):
    vectors = random_vectors(10, 3)
    source = ArraySource(vectors, {"id": range(10), "word": [f"w{i}" for i in range(10)]})
    assert source.rows == 10
    assert source.scalars == {"id": pa.int64(), "word": pa.string()}
    for _ in range(2):
        batches = list(source.batches(size))
        assert [batch.start for batch in batches] == list(range(0, 10, size))
        np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in batches]), vectors)
        assert [i for batch in batches for i in batch.columns["id"].to_pylist()] == list(range(10))
        assert [w for batch in batches for w in batch.columns["word"].to_pylist()] == [f"w{i}" for i in range(10)]


@pytest.mark.parametrize(
    "vectors", [np.arange(6).reshape(3, 2), [[0, 1], [2, 3], [4, 5]], np.arange(6.0).reshape(3, 2)]
)
def test_any_numbers_become_float32(vectors):
    (batch,) = ArraySource(vectors, {"id": np.arange(3)}).batches()
    assert batch.inputs.dtype == np.float32
    np.testing.assert_array_equal(batch.inputs, [[0, 1], [2, 3], [4, 5]])


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 4)])
def test_vectors_of_another_shape(shape):
    with pytest.raises(DataError, match=r"The vectors have shape .*; \(rows, d\) is needed"):
        ArraySource(np.zeros(shape), {})


@pytest.mark.parametrize("vectors", [[[1.0], [1.0, 2.0]], [["a"]], "text", [[None, object()]], [[10**400]]])
def test_what_is_no_array_of_numbers(vectors):
    with pytest.raises(DataError):
        ArraySource(vectors, {})


@pytest.mark.parametrize("length", [0, 2, 4])
def test_a_column_of_another_length(length):
    with pytest.raises(DataError, match=rf"There are 3 vectors, and the column 'id' has {length} values"):
        ArraySource(np.zeros((3, 2)), {"id": list(range(length))})


NO_COLUMNS = {
    "mixed": [1, "a", 3],
    "objects": [object(), 2, 3],
    "a number": 7,
    "beyond 64 bits": [2**80, 1, 2],
    "a matrix": np.zeros((3, 2)),
}


@pytest.mark.parametrize("values", NO_COLUMNS.values(), ids=NO_COLUMNS.keys())
def test_a_column_that_is_no_column(values):
    with pytest.raises(DataError, match="The columns cannot be read"):
        ArraySource(np.zeros((3, 2)), {"id": values})


def test_no_rows():
    source = ArraySource(np.zeros((0, 2)), {"id": []})
    assert source.rows == 0
    assert list(source.batches()) == []
