from __future__ import annotations

import hashlib

import numpy as np
import pytest

from alula.errors import DataError
from alula_exporters.data import check_distinct, fingerprint, input_scale, load_training_data, make_training_data


def test_split_keeps_every_row_once(vectors):
    data = make_training_data(vectors)
    assert len(data.held_out) == 300
    assert data.dim == vectors.shape[1]
    joined = np.concatenate([data.train, data.held_out])
    assert np.array_equal(np.sort(joined, axis=0), np.sort(vectors, axis=0))


def test_split_follows_the_seed(vectors):
    first, again, other = (make_training_data(vectors, seed=seed).held_out for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_max_rows_bounds_training_and_not_the_fingerprint(vectors):
    data = make_training_data(vectors, max_rows=500)
    assert len(data.train) == 500
    assert data.total_rows == len(vectors)
    assert data.fingerprint == fingerprint(vectors)


def test_fingerprint_is_sha256_of_shape_and_bytes(vectors):
    expected = hashlib.sha256(repr(vectors.shape).encode() + vectors.astype("<f4").tobytes()).hexdigest()
    assert fingerprint(vectors) == expected
    assert fingerprint(vectors.reshape(-1, 2)) != expected


def test_scale_is_the_root_mean_square_norm(vectors):
    expected = np.sqrt((vectors.astype(np.float64) ** 2).sum(1).mean())
    assert input_scale(vectors, "L2") == pytest.approx(expected, rel=1e-6)
    assert input_scale(vectors, "COSINE") == 1.0


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.ones((100, 8)), "only 100 training rows"),
        (np.ones((1000, 1)), "at least 2 numbers"),
        (np.ones(1000), "at least 2 numbers"),
        (np.full((1000, 4), np.nan), "NaN"),
    ],
)
def test_refuses_what_cannot_be_learned_from(bad, words):
    with pytest.raises(DataError, match=words):
        make_training_data(bad)


def test_refuses_zero_scale():
    with pytest.raises(DataError, match="root mean square norm is 0"):
        input_scale(np.zeros((10, 3), np.float32), "IP")


def test_check_distinct_looks_at_all_rows_when_a_part_is_not_enough():
    rows = np.zeros((50_000, 2), np.float32)
    with pytest.raises(DataError, match="Only 1 of 50,000"):
        check_distinct(rows, 2)
    rows[1] = 1  # outside the part that is looked at first
    check_distinct(rows, 2)


def test_load_reads_a_file(tmp_path, vectors):
    np.save(tmp_path / "v.npy", vectors)
    data = load_training_data(tmp_path / "v.npy")
    assert data.fingerprint == fingerprint(vectors)
