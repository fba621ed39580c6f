"""Fingerprints tell any two rows apart, and are the same for the same row wherever it stands."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from alula.replica.fingerprints import fingerprints

N = 200
RNG = np.random.default_rng(1)
FLOATS = RNG.standard_normal((N, 5)).astype(np.float32)
COLUMNS = {
    "whole": pa.array(RNG.integers(-5, 5, N)),
    "tiny": pa.array(RNG.integers(-5, 5, N).astype(np.int8)),
    "real": pa.array(FLOATS[:, 0]),
    "flag": pa.array(RNG.integers(0, 2, N).astype(bool)),
    "word": pa.array(["x" * (i % 7) + "é" * (i % 3) for i in range(N)]),
    "sparse": pa.array([RNG.bytes(8 * (i % 5)) for i in range(N)], pa.binary()),
    "bits": pa.array([RNG.bytes(3) for _ in range(N)], pa.binary(3)),
    "vector": pa.FixedSizeListArray.from_arrays(pa.array(FLOATS.ravel()), 5),
    "array": pa.array(FLOATS.tolist(), pa.list_(pa.float32())),
}
ROWS = pa.RecordBatch.from_pydict(COLUMNS)
OTHERS = {"whole": 99, "tiny": 99, "real": 0.25, "word": "y", "sparse": b"12345678", "bits": b"abc"}


def changed(name, place):
    values = COLUMNS[name].to_pylist()
    old = values[place]
    values[place] = not old if name == "flag" else [*old[:-1], 9.0] if isinstance(old, list) else OTHERS[name]
    return pa.RecordBatch.from_pydict({**COLUMNS, name: pa.array(values, COLUMNS[name].type)})


@pytest.mark.parametrize("name", COLUMNS)
def test_a_change_of_any_column_is_seen_in_its_row_alone(name):
    other = fingerprints(changed(name, 77)) != fingerprints(ROWS)
    assert np.flatnonzero(other).tolist() == [77]


def test_the_same_wherever_a_row_stands():
    whole = fingerprints(ROWS)
    assert len(set(whole.tolist())) == N
    for start, stop in ((0, 1), (3, 50), (64, N)):
        part = ROWS.slice(start, stop - start)
        np.testing.assert_array_equal(fingerprints(part), whole[start:stop])
        np.testing.assert_array_equal(fingerprints(ROWS.take(pa.array(range(start, stop)))), whole[start:stop])


def test_the_order_of_words_and_the_bounds_of_texts_count():
    def of(values, kind):
        return fingerprints(pa.RecordBatch.from_pydict({"x": pa.array(values, kind)})).tolist()

    assert len(set(of(["ab", "ba", "a", "b", "", "\0", "\0\0", "\0" * 8], pa.string()))) == 8
    assert len(set(of([b"", bytes(8), bytes(16), b"1" * 8 + b"2" * 8, b"2" * 8 + b"1" * 8], pa.binary()))) == 5
    two = pa.RecordBatch.from_pydict({"a": ["x", "y"], "b": ["y", "x"]})
    assert len(set(fingerprints(two).tolist())) == 2


def test_the_same_in_every_version():
    # snapshots keep them: another number would make every row of an old one look changed
    rows = pa.RecordBatch.from_pydict({"a": pa.array([1, -1]), "b": ["é", ""], "c": [b"12345678", b""]})
    assert [f"{one:016x}" for one in fingerprints(rows)] == ["fedafb0853301a68", "077475ae7d1481a2"]
