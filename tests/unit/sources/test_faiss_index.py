"""faiss indexes as sources: their vectors in their order, or a sentence."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from alula.errors import DataError, UsageError
from alula.sources import open_source
from tests.tiny_encoders import random_vectors

DIM = 8
VECTORS = random_vectors(100, DIM)


def write(path, index, ids=None):
    if ids is None:
        index.add(VECTORS)
    else:
        index.add_with_ids(VECTORS, ids)
    faiss.write_index(index, str(path))
    return path


@pytest.mark.parametrize("make", [faiss.IndexFlatL2, faiss.IndexFlatIP, lambda dim: faiss.IndexHNSWFlat(dim, 8)])
def test_the_vectors_are_read_in_their_order(tmp_path, make):
    source = open_source(write(tmp_path / "x.index", make(DIM)))
    assert (source.rows, source.dim, dict(source.scalars)) == (100, DIM, {})
    batches = list(source.batches(30))
    assert [batch.start for batch in batches] == [0, 30, 60, 90]
    np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in batches]), VECTORS)
    (last,) = source.batches(30, after=89)
    np.testing.assert_array_equal(last.inputs, VECTORS[90:])


@pytest.mark.parametrize("kind", [faiss.IndexIDMap, faiss.IndexIDMap2])
def test_ids_are_a_column(tmp_path, kind):
    ids = np.arange(100, dtype=np.int64)[::-1] + (1 << 60)
    source = open_source(write(tmp_path / "x.faiss", kind(faiss.IndexFlatIP(DIM)), ids))
    (batch,) = source.batches()
    assert batch.columns["id"].to_pylist() == ids.tolist()
    np.testing.assert_array_equal(batch.inputs, VECTORS)


@pytest.mark.parametrize("factory", ["SQ8", "PQ4x4", "IVF4,Flat", "LSH"])
def test_an_index_without_the_vectors_is_refused(tmp_path, factory):
    index = faiss.index_factory(DIM, factory)
    index.train(VECTORS)
    with pytest.raises(DataError, match=r"x\.faiss is a faiss Index.*, which does not hold the vectors"):
        open_source(write(tmp_path / "x.faiss", index))


def test_what_is_no_index(tmp_path, monkeypatch):
    (tmp_path / "x.faiss").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"x\.faiss is not a faiss index, or it is truncated"):
        open_source(tmp_path / "x.faiss")
    whole = write(tmp_path / "y.faiss", faiss.IndexFlatL2(DIM)).read_bytes()
    (tmp_path / "y.faiss").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"y\.faiss is not a faiss index, or it is truncated"):
        open_source(tmp_path / "y.faiss")
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UsageError, match="pip install faiss-cpu"):
        open_source(tmp_path / "x.faiss")
