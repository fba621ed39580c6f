"""An index in this process that is handed vectors which lie in memory already."""

import numpy as np
import pytest

from alula.encoders import load_encoder
from alula.index_types import index_type
from alula.kernels.vectors import Vectors
from tests.small_collections import best, scores
from tests.tiny_encoders import random_vectors, write_drq, write_flops

ROWS, QUERIES = random_vectors(400, seed=1), random_vectors(5, seed=2)
OPTIONS = {"candidates": 390, "terms": None, "bits": None, "nprobe": 16, "probes": None}


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
@pytest.mark.parametrize("name", ["DRQ", "FLOPS_SPARSE"])
def test_it_ranks_by_the_vectors_it_was_handed(tmp_path, name, metric):
    if name == "DRQ":
        path = write_drq(tmp_path / "drq.onnx", metric=metric, levels=6).path
    else:
        path = write_flops(tmp_path / "flops.onnx", metric=metric, max_nnz=24).path
    encoder = load_encoder(path)
    index = index_type(name).local(encoder, metric, keep_vectors=False)
    index.add(encoder.encode_rows(ROWS))
    index.save(tmp_path / "codes")
    index = index_type(name).open_local(tmp_path / "codes", encoder)
    assert not index.keeps_vectors
    index.hold(ROWS)
    assert index.keeps_vectors
    found = index.search(QUERIES, 10, OPTIONS)
    for query, positions, exact in zip(QUERIES, found.positions, found.scores, strict=True):
        expected = scores(query, ROWS, metric)
        assert positions.tolist() == best(expected, 10, metric).tolist()
        np.testing.assert_allclose(exact, expected[positions], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_vectors_are_not_copied_and_may_be_read_only(metric):
    rows = ROWS.copy()
    rows.setflags(write=False)
    vectors = Vectors.over(rows, metric)
    assert np.shares_memory(vectors.array, rows)
    positions, exact = vectors.best(QUERIES[0], np.arange(0, 400, 2), 5)
    expected = scores(QUERIES[0], ROWS, metric)
    assert positions.tolist() == (2 * best(expected[::2], 5, metric)).tolist()
    np.testing.assert_allclose(exact, expected[positions], rtol=1e-4, atol=1e-5)
    vectors.add(QUERIES)
    assert len(vectors) == 405
    assert np.array_equal(vectors.array, np.concatenate([ROWS, QUERIES]))
