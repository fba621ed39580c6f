"""Images and texts out of files and memory."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alula.errors import DataError, UsageError
from alula.sources import ArraySource, open_source, read_inputs

TEXTS = ["one", "", "drei Wörter hier", "four 😀"]


def save_texts(path, texts, **columns):
    if path.suffix == ".txt":
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"title": texts, **columns}), path)
    else:
        rows = [dict(zip(["title", *columns], row, strict=True)) for row in zip(texts, *columns.values(), strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("ending", [".txt", ".parquet", ".jsonl"])
@pytest.mark.parametrize("size", [1, 3, 8192])
def test_texts_in_order(tmp_path, ending, size):
    path = save_texts(tmp_path / f"x{ending}", TEXTS)
    source = open_source(path, None, "text")
    batches = list(source.batches(size))
    assert [text for batch in batches for text in batch.inputs] == TEXTS
    assert [batch.start for batch in batches] == list(np.cumsum([0, *map(len, batches)])[:-1])
    assert all(len(batch) <= size for batch in batches if ending != ".jsonl")
    (name,) = source.scalars  # a text is a scalar column too
    assert name == ("text" if ending == ".txt" else "title")
    assert [text for batch in batches for text in batch.columns[name].to_pylist()] == TEXTS
    assert read_inputs(path, None, "text") == TEXTS


def test_the_only_column_of_strings_or_the_one_named(tmp_path):
    path = save_texts(tmp_path / "x.parquet", TEXTS, year=[1, 2, 3, 4])
    assert open_source(path, None, "text").column == "title"
    path = save_texts(tmp_path / "x.parquet", TEXTS, body=["b"] * 4, year=[1, 2, 3, 4])
    with pytest.raises(
        UsageError, match=r"2 columns of strings \(title, body\); .* holds the text \(text_column=...\)"
    ):
        open_source(path, None, "text")
    assert read_inputs(path, "body", "text") == ["b"] * 4
    assert list(open_source(path, "body", "text").scalars) == ["title", "body", "year"]
    with pytest.raises(UsageError, match=r"'year' of .* holds int64, not strings"):
        open_source(path, "year", "text")
    with pytest.raises(UsageError, match="no column 'tite'"):
        open_source(path, "tite", "text")


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_other_types_of_strings(tmp_path, kind):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"title": pa.array(TEXTS).cast(kind)}), path)
    assert read_inputs(path, None, "text") == TEXTS


@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_a_missing_text_is_named(tmp_path, ending):
    path = save_texts(tmp_path / f"x{ending}", ["a", "b", None])
    with pytest.raises(DataError, match=r"Row 2 of .*: no text in the column 'title'"):
        read_inputs(path, None, "text")


def test_line_ends_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n two \n\nfour")
    assert read_inputs(path, None, "text") == ["one", " two ", "", "four"]


def test_what_is_no_utf_8(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("gar nicht schön\n".encode("latin-1"))
    with pytest.raises(DataError, match="it is not text in UTF-8"):
        read_inputs(path, None, "text")


@pytest.mark.parametrize(
    ("name", "input", "says"),
    [
        ("x.npy", "text", r"does not read text from; give a \.txt, \.parquet"),
        ("x.parquet", "images", r"does not read images from; give a \.npy, .* or \.h5 file"),
        ("x.txt", "vectors", r"that Alula does not read; give a \.npy"),
    ],
)
def test_files_for_something_else(tmp_path, name, input, says):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=says):
        open_source(tmp_path / name, None, input)


@pytest.mark.parametrize("shape", [(7, 4, 5, 3), (7, 4, 5)])
def test_images(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "x.npy", images)
    source = open_source(tmp_path / "x.npy", None, "images")
    batches = list(source.batches(3))
    assert (source.rows, source.scalars, [len(batch) for batch in batches]) == (7, {}, [3, 3, 1])
    expected = images if len(shape) == 4 else images[..., None]
    np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in batches]), expected)
    np.testing.assert_array_equal(read_inputs(tmp_path / "x.npy", None, "images"), expected)


@pytest.mark.parametrize("array", [np.zeros((7, 4, 5, 3)), np.zeros((7, 4), np.uint8)])
def test_arrays_that_are_no_images(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=r"images are uint8 of shape \(rows, height, width, channels\)"):
        open_source(tmp_path / "x.npy", None, "images")


def test_texts_in_memory():
    source = ArraySource(TEXTS, {"id": range(4)}, "text")
    assert [batch.inputs for batch in source.batches(3)] == [TEXTS[:3], TEXTS[3:]]
    with pytest.raises(DataError, match="There are 4 texts, and the column 'id' has 3 values"):
        ArraySource(TEXTS, {"id": range(3)}, "text")
