"""Tables of every format, wherever they lie: all rows in order, from any cursor on."""

from __future__ import annotations

import csv
import gzip
import http.server
import io
import json
import os
import threading
import uuid

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from alula.errors import DataError, UsageError
from alula.sources import open_source
from tests.tiny_encoders import random_vectors

DIM = 4
ENDINGS = ["parquet", "csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "feather", "arrow", "ipc"]


def rows_of(count, first=0):
    """Vectors, and scalar columns that need care in a text format."""
    vectors = random_vectors(count, DIM, seed=first)
    ids = list(range(first, first + count))
    words = [f'a "quoted", {i}\nsecond line 漢' if i % 7 == 3 else f"w{i}" for i in ids]
    return vectors, {"id": ids, "word": words, "code": [f"{i:05}" for i in ids]}


def save(path, vectors, columns):
    """A table in the format of the ending, at a path or URL."""
    ending = str(path).rpartition("/")[2].partition(".")[2]
    with fsspec.open(path, "wb") as file:
        file.write(encoded(ending, vectors, columns))
    return path


def encoded(ending, vectors, columns):
    if ending.endswith(".gz"):
        return gzip.compress(encoded(ending.removesuffix(".gz"), vectors, columns))
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if ending == "jsonl":
        lines = [json.dumps({**row, "v": v}) for row, v in zip(rows, vectors.tolist(), strict=True)]
        return "".join(f"{line}\n" for line in lines).encode()
    if ending in ("csv", "tsv"):
        out = io.StringIO()
        writer = csv.writer(out, delimiter="," if ending == "csv" else "\t")
        writer.writerow([*columns, "v"])
        writer.writerows([*row.values(), json.dumps(v)] for row, v in zip(rows, vectors.tolist(), strict=True))
        return out.getvalue().encode()
    table = pa.table({**columns, "v": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)})
    sink = pa.BufferOutputStream()
    if ending == "parquet":
        pq.write_table(table, sink, row_group_size=23)
    elif ending == "feather":
        feather.write_feather(table, sink, chunksize=23)
    elif ending == "arrow":  # a stream, which has no index
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=23)
    else:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=23)
    return sink.getvalue().to_pybytes()


def check(source, vectors, columns, size=20):
    """Every row, in order, with its columns; again from behind each batch; keys alone."""
    batches = list(source.batches(size))
    assert not any(batch.bad for batch in batches)
    np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in batches]), vectors)
    for name, values in columns.items():
        assert [value for batch in batches for value in batch.columns[name].to_pylist()] == values
    assert list(source.scalars) == list(columns)
    assert source.rows == len(vectors)
    for number in (0, len(batches) // 2, len(batches) - 1):
        again = list(source.batches(size, after=batches[number].span[1]))
        assert [batch.start for batch in again] == [batch.start for batch in batches[number + 1 :]]
        assert [len(batch) for batch in again] == [len(batch) for batch in batches[number + 1 :]]
        for one, other in zip(again, batches[number + 1 :], strict=True):
            np.testing.assert_array_equal(one.inputs, other.inputs)
            assert one.row(0) == other.row(0)
    assert [key for part in source.keys("id") for key in part.to_pylist()] == columns["id"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_one_file_of_each_format(tmp_path, ending):
    vectors, columns = rows_of(90)
    source = open_source(save(tmp_path / f"x.{ending}", vectors, columns))
    check(source, vectors, columns)
    check(source, vectors, columns)  # now the number of rows is known
    assert source.scalars == {"id": pa.int64(), "word": pa.string(), "code": pa.string()}
    assert source.dim == (None if ending[:3] in ("csv", "tsv", "jso") else DIM)


@pytest.mark.parametrize("ending", ENDINGS)
def test_several_files_are_one_source(tmp_path, ending):
    counts = [25, 40, 7]
    for number, count in enumerate(counts):
        save(tmp_path / f"part-{number}.{ending}", *rows_of(count, sum(counts[:number])))
    (tmp_path / "_SUCCESS").touch()
    parts = [rows_of(count, sum(counts[:number])) for number, count in enumerate(counts)]
    vectors = np.concatenate([vectors for vectors, _ in parts])
    columns = {name: [value for _, part in parts for value in part[name]] for name in parts[0][1]}
    listed = [tmp_path / f"part-{number}.{ending}" for number in (2, 0, 1)]
    for place in (tmp_path, str(tmp_path / f"part-*.{ending}"), listed):
        source = open_source(place)
        check(source, vectors, columns)
        # batches end with their files, so that a load taken up again meets the same ones
        assert [len(batch) for batch in source.batches(20)] == [20, 5, 20, 20, 7]


@pytest.mark.parametrize("ending", ["parquet", "jsonl.gz", "feather"])
def test_s3(bucket, ending):
    for number in range(2):
        save(f"{bucket}/{ending}/part-{number}.{ending}", *rows_of(30, 30 * number))
    vectors, columns = rows_of(30)
    check(open_source(f"{bucket}/{ending}/part-0.{ending}"), vectors, columns)
    for place in (f"{bucket}/{ending}", f"{bucket}/{ending}/part-?.{ending}"):
        assert sum(len(batch) for batch in open_source(place).batches(8)) == 60
    with pytest.raises(UsageError, match=r"There is no file s3://rows/none\.parquet"):
        open_source(f"{bucket}/none.parquet")
    with pytest.raises(UsageError, match="s3://nowhere"):
        open_source("s3://nowhere/x.parquet")


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "ipc"])
def test_memory(ending):
    name = f"memory://{uuid.uuid4().hex}/x.{ending}"
    vectors, columns = rows_of(50)
    check(open_source(save(name, vectors, columns)), vectors, columns)


def test_arrays_elsewhere():
    vectors = random_vectors(50, DIM)
    folder = f"memory://{uuid.uuid4().hex}"
    with fsspec.open(f"{folder}/x.npy", "wb") as file:
        np.save(file, vectors)
    with fsspec.open(f"{folder}/x.npz", "wb") as file:
        np.savez_compressed(file, vectors=vectors, id=np.arange(50))
    np.testing.assert_array_equal(
        np.concatenate([b.inputs for b in open_source(f"{folder}/x.npy").batches(7)]), vectors
    )
    check(open_source(f"{folder}/x.npz"), vectors, {"id": list(range(50))})


def test_a_web_server(tmp_path):
    vectors, columns = rows_of(50)
    save(tmp_path / "x.parquet", vectors, columns)
    handler = type(
        "Quiet",
        (http.server.SimpleHTTPRequestHandler,),
        {
            "log_message": lambda *_: None,
            "__init__": lambda self, *a: http.server.SimpleHTTPRequestHandler.__init__(
                self, *a, directory=str(tmp_path)
            ),
        },
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        check(open_source(f"{url}/x.parquet?signature=abc"), vectors, columns)
        with pytest.raises(UsageError, match="There is no file"):
            open_source(f"{url}/y.parquet")
        server.shutdown()
    with pytest.raises((DataError, UsageError), match=url):
        open_source(f"{url}/x.parquet")


def test_a_url_of_this_machine(tmp_path):
    vectors, columns = rows_of(10)
    check(open_source(f"file://{save(tmp_path / 'x.parquet', vectors, columns)}"), vectors, columns)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("what://x/y.parquet", "cannot be read: Protocol not known: what"),
        ("none/*.parquet", r"There is no file none/\*\.parquet"),
        ([], "No file was given"),
    ],
)
def test_places_that_are_none(place, says):
    with pytest.raises(UsageError, match=says):
        open_source(place)


def test_a_folder_of_nothing_or_of_several_formats(tmp_path):
    with pytest.raises(UsageError, match="There is no file in"):
        open_source(tmp_path)
    save(tmp_path / "a.csv", *rows_of(3))
    save(tmp_path / "b.jsonl", *rows_of(3))
    with pytest.raises(UsageError, match=r"a\.csv is CSV and .*b\.jsonl is JSON lines; give files of one format"):
        open_source(tmp_path)
    (tmp_path / "b.jsonl").rename(tmp_path / "notes.md")
    with pytest.raises(UsageError, match=r"notes\.md has an ending"):
        open_source(tmp_path)


def test_files_that_do_not_go_together(tmp_path):
    vectors, columns = rows_of(3)
    save(tmp_path / "a.parquet", vectors, columns)
    save(tmp_path / "b.parquet", vectors, {**columns, "year": [1, 2, 3]})
    with pytest.raises(DataError, match=r"b\.parquet has a column 'year' and .*a\.parquet has none"):
        open_source(tmp_path)
    save(tmp_path / "b.parquet", vectors, {**columns, "id": ["x", "y", "z"]})
    with pytest.raises(DataError, match=r"The column 'id' is int64 in .*a\.parquet and string in .*b\.parquet"):
        open_source(tmp_path)
    save(tmp_path / "b.parquet", vectors, {**columns, "id": pa.array([7, 8, 9], pa.int16())})
    source = open_source(tmp_path)
    assert [batch.columns["id"].type for batch in source.batches()] == [pa.int64()] * 2
    assert [part.to_pylist() for part in source.keys("id")] == [[0, 1, 2], [7, 8, 9]]


def test_empty_parts_are_passed_over(tmp_path):
    (tmp_path / "part-0.jsonl").touch()
    vectors, columns = rows_of(5)
    save(tmp_path / "part-1.jsonl", vectors, columns)
    check(open_source(tmp_path), vectors, columns)
    (tmp_path / "part-1.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        open_source(tmp_path)


def test_the_fingerprint_tells_files_that_changed(tmp_path):
    path = save(tmp_path / "x.parquet", *rows_of(5))
    before = open_source(path).fingerprint
    assert open_source(str(path)).fingerprint == before
    os.utime(path, ns=(1, 1))
    assert open_source(path).fingerprint != before
    save(tmp_path / "y.parquet", *rows_of(5))
    assert len({open_source(tmp_path / f"{name}.parquet").fingerprint for name in "xy"} | {before}) == 3


@pytest.mark.parametrize("ending", ["csv.gz", "jsonl.gz", "feather", "arrow", "ipc", "csv"])
def test_files_that_break_off(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    whole = encoded(ending, *rows_of(300))
    for share in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        if ending == "csv":
            path.write_bytes(path.read_bytes().rpartition(b'"[')[0] + b'"[1, 2')
        with pytest.raises((DataError, UsageError), match=rf"x\.{ending}"):
            list(open_source(path).batches(50))
