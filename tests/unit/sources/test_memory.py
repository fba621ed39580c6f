"""Small files that unfold to gigabytes: read in bounded memory, or refused by their line."""

from __future__ import annotations

import gzip
import itertools
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alula.errors import DataError
from alula.sources import open_source
from alula.sources import reading as reading_module
from alula.sources.row_bytes import cut_by_bytes, row_bytes

# Reads a whole source; prints the rows, the bytes of the texts, the bad rows and the most memory in MiB.
READ = """
import sys
from alula.errors import AlulaError
from alula.sources import open_source
import pyarrow.compute as pc
from tests.peak import peak_mib
before = peak_mib()
rows = size = bad = 0
try:
    for batch in open_source(sys.argv[1], *sys.argv[2:]).batches(8192):
        rows, bad = rows + len(batch), bad + len(batch.bad)
        if "text" in batch.columns:
            size += pc.sum(pc.binary_length(batch.columns["text"])).as_py()
except AlulaError as error:
    print(error)
print(rows, size, bad, peak_mib() - before)
"""
MOST = 400  # MiB


def read(path, *args):
    """Rows, bytes of texts, bad rows and sentences of a source that is read in a process of its own."""
    command = [sys.executable, "-c", READ, str(path), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode} {done.stderr[-2000:]}"
    *sentences, figures = done.stdout.splitlines()
    rows, size, bad, used = map(int, figures.split())
    assert used < MOST, f"{used} MiB"
    return rows, size, bad, " ".join(sentences)


def zipped(path, *parts):
    """A gzip file of parts: (content, repeats)."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for content, repeats in parts:
            block = max(1, min(repeats, (1 << 20) // len(content)))
            for _ in range(repeats // block):
                file.write(content * block)
            file.write(content * (repeats % block))
    return path


def test_a_dictionary_of_long_texts(tmp_path):
    """8,000 rows of one text of 100,000 characters: 800 MB out of a small file."""
    path, rows = tmp_path / "texts.parquet", 8000
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 100_000]))
    vectors = pa.array(np.ones((rows, 2), np.float32).tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"embedding": vectors, "text": text.cast(pa.dictionary(pa.int32(), pa.string()))}), path)
    assert path.stat().st_size < 1e6
    assert read(path) == (rows, rows * 100_000, 0, "")


def test_lists_of_one_number_many_times(takes_long, tmp_path):
    """1,000 vectors of 100,000 equal numbers: 400 MB, and 800 as a batch, out of a small file."""
    path, rows, dim = tmp_path / "vectors.parquet", 1000, 100_000
    values = pa.array(np.ones(rows * dim, np.float32))
    lists = pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * dim, values)
    pq.write_table(pa.table({"embedding": lists}), path, compression="zstd")
    assert path.stat().st_size < 1e6
    del values, lists
    assert read(path)[:3] == (rows, 0, 0)


@pytest.mark.parametrize("ending", [".csv.gz", ".jsonl.gz", ".txt.gz"])
def test_one_line_without_an_end(tmp_path, ending):
    head = {".csv.gz": b"id,text\n1,", ".jsonl.gz": b'{"id": 1, "text": "', ".txt.gz": b"x"}[ending]
    path = zipped(tmp_path / f"long{ending}", (head, 1), (b"x", 300 << 20))
    rows, _, _, sentence = read(path, "text", "text")
    assert rows == 0
    assert "is longer than" in sentence
    assert "line" in sentence


def test_a_quote_that_goes_on(tmp_path):
    path = zipped(
        tmp_path / "quoted.csv.gz", (b'embedding,text\n"[1, 2]",x\n"[1, 2]","', 1), (b"x" * 9999 + b"\n", 4000)
    )
    rows, _, bad, sentence = read(path, "embedding")
    assert sentence or bad > rows - 3 > 0, "the field ends in the middle, and what follows is no row"


def test_rows_of_many_empty_fields(takes_long, tmp_path):
    width = 10_000
    header = ",".join(["embedding", *(f"c{i}" for i in range(width))]).encode() + b"\n"
    row = b'"[1, 2]"' + b"," * width + b"\n"
    path = zipped(tmp_path / "wide.csv.gz", (header, 1), (row, 500))
    assert read(path, "embedding")[:3] == (500, 0, 0)


def test_long_texts_in_compressed_lines(takes_long, tmp_path):
    """8,000 lines of 60,000 characters: 480 MB."""
    line = b'{"embedding": [1, 2], "text": "%s"}\n' % (b"x" * 60_000)
    path = zipped(tmp_path / "texts.jsonl.gz", (line, 8000))
    assert read(path, "embedding") == (8000, 8000 * 60_000, 0, "")
    path = zipped(tmp_path / "texts.csv.gz", (b"embedding,text\n", 1), (b'"[1, 2]",' + b"x" * 60_000 + b"\n", 8000))
    assert read(path, "embedding") == (8000, 8000 * 60_000, 0, "")


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"a":[' * 100_000])
def test_deep_nesting_is_a_bad_row(tmp_path, deep):
    """Arrow's parser ends the process over it."""
    lines = [b'{"embedding": [1, 2], "other": 1}', b'{"embedding": [1, 2], "other": %s}' % deep] * 2
    (tmp_path / "deep.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    assert read(tmp_path / "deep.jsonl", "embedding")[::2] == (4, 2)
    batch = next(open_source(tmp_path / "deep.jsonl", "embedding").batches(10))
    assert list(batch.bad) == [1, 3]
    assert "nested more than 64 deep" in batch.bad[1]
    (tmp_path / "deep.csv").write_bytes(b'embedding\n"[1, 2]"\n"%s"\n' % deep.replace(b'"', b'""'))
    assert read(tmp_path / "deep.csv", "embedding")[::2] == (2, 1)


def test_brackets_in_texts_are_no_nesting(tmp_path):
    text = '[[{\\"' * 1000
    (tmp_path / "texts.jsonl").write_text(f'{{"embedding": [1, 2], "text": "{text}"}}\n' * 3)
    (batch,) = open_source(tmp_path / "texts.jsonl", "embedding").batches(10)
    assert not batch.bad
    assert batch.columns["text"].to_pylist() == [text.replace("\\", "")] * 3


def sized_record():
    texts = ["", "a" * 10, None, "b" * 1000]
    return pa.RecordBatch.from_pydict(
        {
            "i": pa.array([1, 2, None, 4], pa.int32()),
            "s": texts,
            "d": pa.array(texts).dictionary_encode(),
            "l": pa.array([[], [1.0, 2.0], None, [1.0]], pa.list_(pa.float64())),
            "t": pa.array([["a"], [], ["bb", "ccc"], None]),
            "f": pa.array([[1, 2]] * 4, pa.list_(pa.float32(), 2)),
            "e": pa.array([["a"]] * 4, pa.list_(pa.string(), 1)),
            "r": pa.array([{"x": 1, "y": "abc"}] * 4),
            "n": pa.nulls(4),
        }
    )


def test_the_bytes_of_rows():
    """By hand: 4 of i, text and place of s and d, 8 a number and a place of l, f 8, e 9, r 8 and 3 and a place."""
    expected = [4 + 8 + 8 + 8 + 17 + 8 + 9 + 19, 4 + 18 + 18 + 24 + 8 + 8 + 9 + 19]
    expected += [4 + 8 + 8 + 8 + 29 + 8 + 9 + 19, 4 + 1008 + 1008 + 16 + 8 + 8 + 9 + 19]
    found = row_bytes(sized_record())
    np.testing.assert_allclose(found, expected, atol=8)  # a null text in a dictionary may have a place or not
    np.testing.assert_array_equal(row_bytes(sized_record().slice(1, 2)), found[1:3])


def test_cutting_by_bytes_keeps_all_rows():
    record, sizes = sized_record(), row_bytes(sized_record())
    for most in (1, 100, 200, 10_000):
        parts = list(cut_by_bytes(record, most))
        assert pa.Table.from_batches(parts).to_pylist() == record.to_pylist()
        assert all(part.num_rows == 1 or row_bytes(part).sum() <= most for part in parts)
    assert len(list(cut_by_bytes(record, int(sizes.sum())))) == 1


@pytest.mark.parametrize("most", [1, 150, 400, 1 << 20])
def test_batches_after_any_batch_are_the_same(tmp_path, monkeypatch, most):
    """A load that is resumed goes on with the batches that it had."""
    monkeypatch.setattr(reading_module, "BATCH_BYTES", most)
    rng = np.random.default_rng(0)
    rows = [{"embedding": [1.0, 2.0], "text": "x" * int(rng.integers(0, 100))} for _ in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=7)
    source = open_source(tmp_path / "rows.parquet")
    whole = [batch.span for batch in source.batches(8)]
    assert whole[0][0] == 0
    assert all(last + 1 == first for (_, last), (first, _) in itertools.pairwise(whole))
    assert whole[-1][1] == 59
    assert (len(whole) == 60) == (most == 1)
    for i, (_, last) in enumerate(whole[:-1]):
        assert [batch.span for batch in source.batches(8, after=last)] == whole[i + 1 :]


def test_a_damaged_file_is_still_a_sentence(tmp_path):
    (tmp_path / "deep.jsonl").write_bytes(b"[" * 100_000)
    with pytest.raises(DataError, match=r"deep\.jsonl"):
        open_source(tmp_path / "deep.jsonl")
