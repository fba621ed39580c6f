"""Files of vectors with their lengths, as the TEXMEX corpora have them."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alula.errors import DataError
from alula.sources import open_source, read_vectors

NUMBERS = {".fvecs": "f", ".ivecs": "i", ".bvecs": "B"}


def write(path, rows):
    kind = NUMBERS[path.suffix]
    path.write_bytes(b"".join(struct.pack(f"<i{len(row)}{kind}", len(row), *row) for row in rows))
    return path


@pytest.mark.parametrize("ending", NUMBERS)
def test_rows_are_read_as_they_were_written(tmp_path, ending):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (100, 5)) if ending != ".fvecs" else rng.standard_normal((100, 5)).astype(np.float32)
    source = open_source(write(tmp_path / f"x{ending}", rows.tolist()))
    assert (source.rows, source.dim, dict(source.scalars)) == (100, 5, {})
    batches = list(source.batches(30))
    assert [batch.start for batch in batches] == [0, 30, 60, 90]
    found = np.concatenate([batch.inputs for batch in batches])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows.astype(np.float32))
    (last,) = source.batches(30, after=89)
    np.testing.assert_array_equal(last.inputs, rows[90:].astype(np.float32))


def test_a_table_beside_them(tmp_path):
    path = write(tmp_path / "x.fvecs", [[1.0, 2.0], [3.0, 4.0]])
    pq.write_table(pa.table({"id": [7, 8]}), tmp_path / "ids.parquet")
    (batch,) = open_source(path, metadata=tmp_path / "ids.parquet").batches()
    assert batch.columns["id"].to_pylist() == [7, 8]


def test_a_vector_that_is_not_finite_is_a_bad_row(tmp_path):
    (batch,) = open_source(write(tmp_path / "x.fvecs", [[1.0, 2.0], [float("nan"), 0.0]])).batches()
    assert set(batch.bad) == {1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x02\0", "does not begin with the length of a vector"),
        (struct.pack("<i", -1), "does not begin with the length of a vector"),
        (struct.pack("<if", 0, 1.0), "does not begin with the length of a vector"),
        (struct.pack("<i2fi", 2, 1.0, 2.0, 2), "ends within a vector of 2 numbers, or they have different lengths"),
        (struct.pack("<i", 1 << 30), "ends within a vector"),
    ],
)
def test_files_that_are_damaged(tmp_path, content, reason):
    (tmp_path / "x.fvecs").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        open_source(tmp_path / "x.fvecs")


def test_vectors_of_different_lengths(tmp_path):
    path = write(tmp_path / "x.fvecs", [[1.0, 2.0], [1.0], [1.0, 2.0, 3.0]])
    with pytest.raises(DataError, match="row 1 has 1 numbers, and the first row 2"):
        read_vectors(path)
