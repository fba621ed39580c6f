"""Arrays in .npz and HDF5 files, and a table beside an array."""

from __future__ import annotations

import json
import sys

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alula.errors import DataError, UsageError
from alula.sources import open_source, read_inputs, read_vectors
from tests.tiny_encoders import random_vectors

VECTORS = random_vectors(100, 4)
IDS = np.arange(1000, 1100)
WORDS = np.array([f"w{i}" for i in range(100)])


def batches_of(source, size=30):
    return list(source.batches(size))


def check(source):
    for _ in range(2):
        batches = batches_of(source)
        assert [batch.start for batch in batches] == [0, 30, 60, 90]
        np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in batches]), VECTORS)
        assert [i for batch in batches for i in batch.columns["id"].to_pylist()] == IDS.tolist()
        assert [w for batch in batches for w in batch.columns["word"].to_pylist()] == WORDS.tolist()
    (last,) = source.batches(30, after=89)
    np.testing.assert_array_equal(last.inputs, VECTORS[90:])
    assert [i for part in source.keys("id", 17) for i in part.to_pylist()] == IDS.tolist()
    assert (source.rows, source.dim) == (100, 4)
    assert source.scalars == {"id": pa.int64(), "word": pa.string()}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz(tmp_path, save, order):
    other = np.zeros(7)
    save(tmp_path / "x.npz", id=IDS, word=WORDS, vectors=np.asarray(VECTORS, order=order), other=other)
    check(open_source(tmp_path / "x.npz"))


def test_npz_of_several_matrices(tmp_path):
    np.savez(tmp_path / "x.npz", a=VECTORS, b=-VECTORS)
    with pytest.raises(UsageError, match=r"contains a float32\[100, 4\], b float32\[100, 4\]; name the array"):
        open_source(tmp_path / "x.npz")
    np.testing.assert_array_equal(read_vectors(tmp_path / "x.npz", "b"), -VECTORS)
    with pytest.raises(UsageError, match="no array 'c'"):
        open_source(tmp_path / "x.npz", "c")


@pytest.mark.parametrize("dtype", [">f8", "<f2", "i1"])
def test_npz_of_other_numbers(tmp_path, dtype):
    whole = np.arange(40).reshape(10, 4).astype(dtype)
    np.savez(tmp_path / "x.npz", whole)
    np.testing.assert_array_equal(read_vectors(tmp_path / "x.npz"), np.arange(40).reshape(10, 4))


def test_npz_that_is_damaged_or_holds_objects(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, vectors=random_vectors(2000, 16), id=np.arange(2000))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"x\.npz is not an \.npz archive, or it is truncated"):
        open_source(path)
    path.write_bytes(whole[:20_000] + b"\xff" * 20_000 + whole[40_000:])
    with pytest.raises(DataError, match=r"x\.npz cannot be read past row \d+"):
        batches_of(open_source(path))
    np.savez(path, vectors=np.array([[print]], dtype=object))
    with pytest.raises(DataError, match="it holds Python objects"):
        open_source(path)


def ann_benchmarks(path):
    with h5py.File(path, "w") as file:
        file["train"], file["test"] = VECTORS, VECTORS[:5]
        file["neighbors"], file["distances"] = np.zeros((5, 10), np.int32), np.zeros((5, 10), np.float32)
        file["id"] = IDS
        file.create_dataset("word", data=WORDS.tolist(), dtype=h5py.string_dtype())
        file.attrs["distance"] = "angular"
    return path


@pytest.mark.parametrize("ending", ["hdf5", "h5"])
def test_hdf5_in_the_layout_of_ann_benchmarks(tmp_path, ending):
    path = ann_benchmarks(tmp_path / f"x.{ending}")
    check(open_source(path))
    np.testing.assert_array_equal(read_vectors(path, "test"), VECTORS[:5])
    assert open_source(path, "test").scalars == {}
    with pytest.raises(UsageError, match=r"no array 'rows'; it contains .*train float32\[100, 4\]"):
        open_source(path, "rows")


def test_hdf5_that_is_none(tmp_path, monkeypatch):
    (tmp_path / "x.h5").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"x\.h5 is not HDF5, or it is truncated"):
        open_source(tmp_path / "x.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"pip install 'alula\[hdf5\]'"):
        open_source(tmp_path / "x.h5")


def save_table(path, count=100):
    rows = [{"id": int(i), "word": str(w)} for i, w in zip(IDS[:count], WORDS, strict=False)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=33)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("id,word\n" + "".join(f"{row['id']},{row['word']}\n" for row in rows))
    return path


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_a_table_beside_an_array(tmp_path, ending):
    np.save(tmp_path / "x.npy", VECTORS)
    table = save_table(tmp_path / f"x.{ending}")
    check(open_source(tmp_path / "x.npy", metadata=table))
    assert open_source(tmp_path / "x.npy").scalars == {}, "it is not looked for"
    for count in (99, 60):
        save_table(table, count)
        with pytest.raises(DataError, match=rf"x\.npy has 100 rows and .*x\.{ending} has {count}"):
            batches_of(open_source(tmp_path / "x.npy", metadata=table))
    np.save(tmp_path / "x.npy", VECTORS[:50])
    with pytest.raises(DataError, match=r"x\.npy has 50 rows"):
        batches_of(open_source(tmp_path / "x.npy", metadata=table))


def test_a_table_where_none_can_be(tmp_path):
    table = save_table(tmp_path / "t.parquet")
    pq.write_table(pa.table({"v": [[1.0]] * 100}), tmp_path / "x.parquet")
    with pytest.raises(UsageError, match="takes no table beside it"):
        open_source(tmp_path / "x.parquet", metadata=table)
    np.savez(tmp_path / "x.npz", VECTORS, id=IDS)
    with pytest.raises(DataError, match="both have a column 'id'"):
        open_source(tmp_path / "x.npz", metadata=table)


def test_images_with_a_table(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (100, 3, 5, 3), np.uint8)
    np.save(tmp_path / "x.npy", images)
    source = open_source(tmp_path / "x.npy", None, "images", metadata=save_table(tmp_path / "t.csv"))
    batches = batches_of(source)
    np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in batches]), images)
    assert [i for batch in batches for i in batch.columns["id"].to_pylist()] == IDS.tolist()
    np.savez_compressed(tmp_path / "x.npz", images=images, id=IDS)
    np.testing.assert_array_equal(read_inputs(tmp_path / "x.npz", None, "images"), images)
