"""Vectors and columns out of ``.npy``, Parquet and JSON lines files; files that are no such thing get a sentence."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alula.errors import DataError, UsageError
from alula.sources import check_finite, open_source, read_vectors
from tests.tiny_encoders import random_vectors

VECTORS = random_vectors(10, 4)
OLD_ARROW = int(pa.__version__.split(".")[0]) < 26


def save_npy(path, array):
    np.save(path, array)
    return path


def save_parquet(path, vectors, **columns):
    pq.write_table(pa.table({"embedding": vectors, **columns}), path)
    return path


def save_lines(path, rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def all_rows(source, size=8192):
    batches = list(source.batches(size))
    starts = np.cumsum([0, *(len(batch) for batch in batches)])
    assert [batch.start for batch in batches] == starts[:-1].tolist(), "the batches follow each other"
    assert {batch.inputs.dtype for batch in batches} == {np.dtype(np.float32)}
    return batches


def lists(vectors, list_type=pa.list_):
    return pa.array([[float(x) for x in row] for row in vectors], list_type(pa.float32()))


# --- any file -------------------------------------------------------------------------------------------------------


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match=r"There is no file .*none\.npy"):
        open_source(tmp_path / "none.npy")


@pytest.mark.parametrize("name", ["x.xml", "x.txt", "x", "x.gz", "x.parquet.gz"])
def test_an_ending_that_is_not_read(tmp_path, name):
    (tmp_path / name).write_text("something")
    with pytest.raises(UsageError, match=r"an ending that Alula does not read; give a \.npy, .* or \.ipc file"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("ending", ["npy", "parquet", "pq", "jsonl", "ndjson", "json"])
def test_an_empty_file(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    path.touch()
    with pytest.raises(DataError, match=rf"The file .*x\.{ending} is empty\."):
        open_source(path)


@pytest.mark.parametrize("ending", ["npy", "parquet", "jsonl"])
def test_random_bytes(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(DataError, match=rf"x\.{ending} "):
        read_vectors(path)


@pytest.mark.parametrize("ending", ["npy", "parquet", "jsonl"])
def test_a_file_cut_off_anywhere(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    if ending == "npy":
        save_npy(path, VECTORS)
    elif ending == "parquet":
        save_parquet(path, lists(VECTORS))
    else:
        save_lines(path, [{"embedding": row} for row in VECTORS.tolist()])
    whole = path.read_bytes()
    for size in sorted({*range(1, 12), *np.linspace(12, len(whole) - 2, 30, dtype=int)}):
        path.write_bytes(whole[:size])
        if ending == "jsonl" and whole[size - 1 : size + 1] in (b"}\n", b"\n{"):
            found = read_vectors(path)  # a cut between two rows leaves fewer rows
            np.testing.assert_array_equal(found, VECTORS[: len(found)])
        else:
            with pytest.raises((DataError, UsageError), match=rf"x\.{ending}"):
                read_vectors(path)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 50), size=st.integers(1, 60), ending=st.sampled_from(["npy", "parquet", "jsonl"]))
def test_batches_of_any_size_hold_all_rows_in_order(tmp_path_factory, rows, size, ending):
    path = tmp_path_factory.mktemp("batches") / f"x.{ending}"
    vectors, ids = random_vectors(rows, 3), list(range(rows))
    if ending == "npy":
        save_npy(path, vectors)
    elif ending == "parquet":
        pq.write_table(pa.table({"id": ids, "embedding": lists(vectors)}), path, row_group_size=7)
    else:
        save_lines(path, [{"id": i, "embedding": row} for i, row in zip(ids, vectors.tolist(), strict=True)])
    source = open_source(path)
    assert source.rows in (rows, None)
    for _ in range(2):  # a load reads twice
        batches = all_rows(source, size)
        assert max(len(batch) for batch in batches) <= size
        np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in batches]), vectors)
        if ending != "npy":
            assert [i for batch in batches for i in batch.columns["id"].to_pylist()] == ids


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_name_the_row_in_the_file(tmp_path, bad):
    vectors = random_vectors(50, 4)
    vectors[37, 2] = vectors[40, 0] = bad
    source = open_source(save_npy(tmp_path / "x.npy", vectors))
    batches = all_rows(source, 20)
    check_finite(batches[0], source.name)
    with pytest.raises(DataError, match=r"Row 37 of .*x\.npy: NaN or infinite values"):
        check_finite(batches[1], source.name)
    with pytest.raises(DataError, match="Row 37 of"):
        read_vectors(source.name)


# --- .npy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i8", "<i4", "<i2", "i1", "u1", "<u4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_numbers(tmp_path, dtype, order):
    array = np.asarray(np.arange(40).reshape(10, 4), dtype=dtype, order=order)
    path = save_npy(tmp_path / "x.npy", array)
    found = read_vectors(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, array.astype(np.float32))
    source = open_source(path)
    assert (source.rows, source.scalars) == (10, {})


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 4), (3, 0)])
def test_npy_of_another_shape(tmp_path, shape):
    with pytest.raises(DataError, match=r"x\.npy holds float64 of shape .*; vectors are numbers of shape \(rows, d\)"):
        open_source(save_npy(tmp_path / "x.npy", np.zeros(shape)))


@pytest.mark.parametrize("dtype", [bool, "U3", "S3", complex, "datetime64[s]", [("a", "f4")]])
def test_npy_of_what_is_no_number(tmp_path, dtype):
    with pytest.raises(DataError, match=r"x\.npy holds"):
        open_source(save_npy(tmp_path / "x.npy", np.zeros((3, 4), dtype)))


def test_npy_without_rows(tmp_path):
    with pytest.raises(DataError, match="holds no rows"):
        open_source(save_npy(tmp_path / "x.npy", np.zeros((0, 4))))


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("as_array", [True, False])
def test_npy_of_objects_is_refused_and_not_unpickled(tmp_path, as_array):
    sprung = tmp_path / "sprung"
    trap, path = Trap(str(sprung)), tmp_path / "x.npy"
    if as_array:
        np.save(path, np.array([[trap]], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(trap))
    with pytest.raises(DataError, match=r"x\.npy is not a \.npy array"):
        open_source(path)
    assert not sprung.exists()


def test_an_npz_archive_named_npy(tmp_path):
    np.savez(tmp_path / "x.npz", VECTORS)
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"x\.npy"):
        open_source(tmp_path / "x.npy")


def test_npy_that_declares_more_rows_than_it_holds(tmp_path):
    path = save_npy(tmp_path / "x.npy", np.zeros((3, 4)))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"(3, 4), }" + b" " * 12, b"(3000000000000, 4), }"))
    assert path.stat().st_size == len(whole)
    assert path.read_bytes() != whole
    with pytest.raises(DataError, match=r"x\.npy"):
        read_vectors(path)


# --- Parquet --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("list_type", [pa.list_, pa.large_list, lambda value: pa.list_(value, 4)])
@pytest.mark.parametrize("value", [pa.float32(), pa.float64(), pa.float16()])
def test_parquet_lists(tmp_path, list_type, value):
    numbers = np.arange(40).reshape(10, 4) / 8
    cast = [[np.float16(x) for x in row] for row in numbers] if value == pa.float16() else numbers.tolist()
    found = read_vectors(save_parquet(tmp_path / "x.parquet", pa.array(cast, list_type(value))))
    np.testing.assert_array_equal(found, numbers.astype(np.float32))


@pytest.mark.parametrize("value", [pa.int8(), pa.int32(), pa.int64(), pa.uint8()])
def test_parquet_lists_of_integers(tmp_path, value):
    vectors = pa.array([[1, 2], [3, 4]], pa.list_(value))
    np.testing.assert_array_equal(read_vectors(save_parquet(tmp_path / "x.pq", vectors)), [[1, 2], [3, 4]])


def test_parquet_scalars_come_with_the_vectors(tmp_path):
    words = ["a", None, "c"]
    source = open_source(save_parquet(tmp_path / "x.parquet", lists(VECTORS[:3]), word=words, tags=[["x"], [], ["y"]]))
    assert (source.column, source.rows) == ("embedding", 3)
    assert source.scalars == {"word": pa.string(), "tags": pa.list_(pa.string())}
    (batch,) = all_rows(source)
    assert batch.columns["word"].to_pylist() == words


def test_parquet_slices_keep_rows_and_vectors_together(tmp_path):
    """Batches smaller than a row group are slices, whose lists do not start at 0."""
    vectors = random_vectors(100, 4)
    path = save_parquet(tmp_path / "x.parquet", lists(vectors, lambda value: pa.list_(value, 4)), id=range(100))
    for batch in all_rows(open_source(path), 7):
        np.testing.assert_array_equal(batch.inputs, vectors[batch.columns["id"].to_numpy()])


@pytest.mark.parametrize(
    "list_type",
    [
        pa.list_,
        pa.large_list,
        pytest.param(
            lambda value: pa.list_(value, 2),
            marks=pytest.mark.skipif(OLD_ARROW, reason="pyarrow 26, which reads null lists of fixed length"),
        ),
    ],
)
def test_parquet_row_without_a_vector(tmp_path, list_type):
    vectors = pa.array([[1.0, 2.0]] * 5 + [None] + [[1.0, 2.0]] * 3, list_type(pa.float32()))
    path = save_parquet(tmp_path / "x.parquet", vectors)
    with pytest.raises(DataError, match=r"Row 5 of .*x\.parquet: no vector in the column 'embedding'"):
        read_vectors(path)
    bad = {batch.start + position: why for batch in open_source(path).batches(2) for position, why in batch.bad.items()}
    assert bad == {5: "no vector in the column 'embedding'"}


def test_parquet_vector_with_a_missing_number(tmp_path):
    vectors = pa.array([[1.0, 2.0], [1.0, None]], pa.list_(pa.float32()))
    with pytest.raises(DataError, match=r"Row 1 of .*x\.parquet: a missing number in the column 'embedding'"):
        read_vectors(save_parquet(tmp_path / "x.parquet", vectors))


@pytest.mark.parametrize("list_type", [pa.list_, pa.large_list])
def test_parquet_ragged_vectors_are_named(tmp_path, list_type):
    vectors = pa.array([[1.0, 2.0]] * 6 + [[1.0]], list_type(pa.float32()))
    path = save_parquet(tmp_path / "x.parquet", vectors)
    with pytest.raises(DataError, match=r"Row 6 of .*: a vector of length 1 in the column .* where 2 is needed"):
        read_vectors(path)
    assert [batch.bad for batch in open_source(path).batches(4)] == [
        {},
        {2: "a vector of length 1 in the column 'embedding', where 2 is needed"},
    ]


def test_ragged_vectors_are_found_between_batches_too(tmp_path):
    path = tmp_path / "x.parquet"
    save_parquet(path, pa.array([[1.0] * 3] * 65536 + [[1.0] * 2] * 3, pa.list_(pa.float32())))
    with pytest.raises(DataError, match=r"Row 65536 of .*: a vector of length 2 .* where 3 is needed"):
        read_vectors(path)


def test_parquet_empty_lists_are_no_vectors(tmp_path):
    with pytest.raises(DataError):
        read_vectors(save_parquet(tmp_path / "x.parquet", pa.array([[], []], pa.list_(pa.float32()))))


def test_parquet_of_several_vector_columns_needs_a_name(tmp_path):
    path = save_parquet(tmp_path / "x.parquet", lists(VECTORS), other=lists(-VECTORS))
    with pytest.raises(
        UsageError, match=r"2 columns of number lists \(embedding, other\); name the one .*\(vector_column=\.\.\.\)"
    ):
        open_source(path)
    np.testing.assert_array_equal(read_vectors(path, "other"), -VECTORS)
    assert list(open_source(path, "other").scalars) == ["embedding"]


def test_parquet_without_a_vector_column(tmp_path):
    pq.write_table(pa.table({"id": [1], "tags": [["a"]]}), tmp_path / "x.parquet")
    with pytest.raises(UsageError, match="has no column of number lists"):
        open_source(tmp_path / "x.parquet")


def test_parquet_column_that_is_not_there_or_no_vector(tmp_path):
    path = save_parquet(tmp_path / "x.parquet", lists(VECTORS), word=["a"] * 10)
    with pytest.raises(UsageError, match=r"has no column 'vec'; its columns are embedding, word\."):
        open_source(path, "vec")
    with pytest.raises(UsageError, match=r"The column 'word' of .* holds string, not lists of numbers\."):
        open_source(path, "word")


def test_parquet_without_rows(tmp_path):
    with pytest.raises(DataError, match="holds no rows"):
        open_source(save_parquet(tmp_path / "x.parquet", pa.array([], pa.list_(pa.float32()))))


def test_parquet_damaged_inside(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"embedding": lists(random_vectors(1000, 16))}), path, row_group_size=100)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20_000] = b"\xff" * 20_000
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.parquet cannot be read past row \d+"):
        list(open_source(path).batches(100))


# --- JSON lines -----------------------------------------------------------------------------------------------------


def test_lines_of_numbers_and_text(tmp_path):
    rows = [{"id": 1, "word": "Müller 🪁", "embedding": [1, 2.5]}, {"id": 2, "word": "漢字", "embedding": [-3, 4e-1]}]
    source = open_source(save_lines(tmp_path / "x.jsonl", rows))
    assert (source.rows, source.column) == (None, "embedding")
    (batch,) = all_rows(source)
    np.testing.assert_array_equal(batch.inputs, np.array([[1, 2.5], [-3, 0.4]], np.float32))
    assert batch.columns["word"].to_pylist() == ["Müller 🪁", "漢字"]


def test_lines_of_whole_numbers(tmp_path):
    found = read_vectors(save_lines(tmp_path / "x.ndjson", [{"v": [1, 2]}, {"v": [3, 4]}]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[1, 2], [3, 4]])


def test_fields_may_come_in_any_order(tmp_path):
    rows = [{"id": 1, "v": [1.0]}, {"v": [2.0], "id": 2}]
    (batch,) = all_rows(open_source(save_lines(tmp_path / "x.jsonl", rows)))
    assert batch.columns["id"].to_pylist() == [1, 2]


def test_the_last_line_may_end_without_a_line_break(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"v": [1.0]}\n{"v": [2.0]}')
    np.testing.assert_array_equal(read_vectors(path), [[1], [2]])


@pytest.mark.parametrize(
    "broken", ['{"v": [1.0, 2.0\n', "no json\n", '{"v": ["a", "b"]}\n', '{"v": 7}\n', "[1.0, 2.0]\n"]
)
def test_a_broken_line_in_the_middle(tmp_path, broken):
    rows = [{"v": [1.0, 2.0]}] * 20
    with pytest.raises(DataError, match=r"x\.jsonl"):
        read_vectors(save_lines(tmp_path / "x.jsonl", [*rows, broken, *rows]))


def test_a_broken_line_far_behind_the_first_block(tmp_path):
    """Only the first block is read to find the columns: what breaks later breaks while reading."""
    good = json.dumps({"v": [0.125] * 64}) + "\n"
    path = tmp_path / "x.jsonl"
    path.write_text(good * 5000 + '{"v": [oops\n' + good * 10)
    assert path.stat().st_size > 2 << 20
    batches = all_rows(open_source(path))
    assert [batch.start + row for batch in batches for row in batch.bad] == [5000]
    assert sum(map(len, batches)) == 5011
    with pytest.raises(DataError, match=r"Row 5000 of .*x\.jsonl: JSON that does not fit"):
        read_vectors(path)


def far_apart(first, then):
    """JSON lines whose first kind of row fills more than the block that the columns are found by."""
    return [first] * (1 + (5 << 20) // len(json.dumps(first))) + [then]


def test_whole_numbers_at_first_and_fractions_later(tmp_path):
    rows = far_apart({"v": [0] * 200}, {"v": [0.5] * 200})
    found = read_vectors(save_lines(tmp_path / "x.jsonl", rows))
    assert (found[-1] == 0.5).all()


def test_a_column_whose_type_changes_late_makes_bad_rows(tmp_path):
    rows = far_apart({"note": 1, "v": [0.5] * 200}, {"note": "late", "v": [0.5] * 200})
    *good, last = open_source(save_lines(tmp_path / "x.jsonl", rows)).batches()
    assert not any(batch.bad for batch in good)
    assert "note" in last.bad.pop(len(last) - 1)
    assert not last.bad


def test_a_column_that_begins_with_nulls_is_left_out(tmp_path):
    """Its type is not known, and rows without a value could not be loaded."""
    rows = far_apart({"note": None, "v": [0.5] * 200}, {"note": "late", "v": [0.5] * 200})
    source = open_source(save_lines(tmp_path / "x.jsonl", [{"id": i, **row} for i, row in enumerate(rows)]))
    assert source.scalars == {"id": pa.int64()}
    assert not any(batch.bad for batch in source.batches())


@pytest.mark.parametrize("odd", [[1.0], [1.0, 2.0, 3.0], [], None, [1.0, None]])
def test_a_line_with_another_vector(tmp_path, odd):
    rows = [{"v": [1.0, 2.0]}] * 4
    with pytest.raises(DataError, match=r"x\.jsonl"):
        read_vectors(save_lines(tmp_path / "x.jsonl", [*rows, {"v": odd}, *rows]))


def test_a_line_without_the_vector(tmp_path):
    rows = [{"id": 0, "v": [1.0]}, {"id": 1}, {"id": 2, "v": [1.0]}]
    with pytest.raises(DataError, match=r"Row 1 of .*: no vector in the column 'v'"):
        read_vectors(save_lines(tmp_path / "x.jsonl", rows))


def test_a_json_document_is_not_json_lines(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"v": [1.0, 2.0]}, {"v": [3.0, 4.0]}], indent=2))
    with pytest.raises((DataError, UsageError), match=r"x\.json"):
        read_vectors(path)


@pytest.mark.parametrize("text", ["\n", "\n\n\n", "{}\n"])
def test_lines_without_content(tmp_path, text):
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises((DataError, UsageError), match=r"x\.jsonl"):
        read_vectors(path)
