"""A bulk import ends with exactly the rows that were written, whoever dies on the way: on the real Milvus 2.3.5.

Where the stage is an S3 only the way there is run: the server of these tests reads its own disk.
"""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

import alula
from alula.errors import ServerError, UnsupportedError, UsageError
from alula.index_types import FieldSpec
from alula.ingest.bulk_import import tasks
from alula.ingest.bulk_import.choice import IMPORT_ROWS, choose
from alula.ingest.bulk_import.delivery import ImportLedger
from alula.ingest.bulk_import.import_file import ImportFile, ImportFileWriter
from alula.ingest.bulk_import.sink import ImportSink
from alula.ingest.bulk_import.staging import StagingArea
from alula.ingest.bulk_import.tasks import can_import
from alula.ingest.journal import Journal
from tests.plain_collections import create_with_signs

BATCH = 100
TYPES = {"flag": "BOOL", "i8": "INT8", "i16": "INT16", "i32": "INT32", "i64": "INT64", "f": "FLOAT", "d": "DOUBLE"}
SIGNS = FieldSpec("signs", "BINARY_VECTOR", 8, {"dim": 64})
ALL = (
    FieldSpec("id", "VARCHAR", 0, {"max_length": 64}),
    SIGNS,
    FieldSpec("vector", "ARRAY", 12, {"element_type": "FLOAT", "max_capacity": 3}),
    FieldSpec("word", "VARCHAR", 0, {"max_length": 64}),
    *(FieldSpec(name, data_type, 8) for name, data_type in TYPES.items()),
    FieldSpec("about", "JSON", 0),
    FieldSpec("tags", "ARRAY", 0, {"element_type": "VARCHAR", "max_capacity": 3, "max_length": 9}),
    FieldSpec("$meta", "JSON", 0),
)
SMALL = (FieldSpec("id", "INT64", 8), SIGNS)


class DeathError(Exception):
    """The loader ends here, as by kill -9."""


class Ledger(ImportLedger):
    """A ledger whose loader dies ``before`` or ``after`` a step of a file is on the disk."""

    def __init__(self, journal: Journal, step: str = "", when: str = "before") -> None:
        super().__init__(journal)
        self.step = step
        self.when = when

    def record(self, file):
        moved = file.state == "written" and not file.file.endswith(".0.parquet")
        here = self.step == ("moved" if moved else file.state)
        if here and self.when == "before":
            raise DeathError
        super().record(file)
        if here:
            raise DeathError


def columns(n: int, *, strings: bool = True) -> dict:
    """Values for `ALL`: numpy arrays, as encoders give them, and lists, as the scalars of a source come."""
    rng = np.random.default_rng(1)
    edge = {"i8": 1 << 7, "i16": 1 << 15, "i32": 1 << 31, "i64": 1 << 63}
    return {
        "id": [f"it's {i} é" for i in range(n)] if strings else np.arange(n),
        "signs": rng.integers(0, 256, (n, 8), dtype=np.uint8),
        "vector": rng.standard_normal((n, 3)).astype(np.float32).tolist(),
        "word": [f'"w{i}" 😀' for i in range(n)],
        "flag": (rng.integers(0, 2, n) > 0).tolist(),
        **{name: [-top, top - 1, *rng.integers(-100, 100, n - 2).tolist()] for name, top in edge.items()},
        "f": rng.standard_normal(n).astype(np.float32).tolist(),
        "d": rng.standard_normal(n).tolist(),
        "about": [b'{"big": %d, "deep": [null, {"a": "\xc3\xa9"}]}' % (2**53 + i) for i in range(n)],
        "tags": [["a", "é" * 4, ""][: i % 4] for i in range(n)],
        "$meta": [b'{"colour": "red"}' if i % 2 else b"{}" for i in range(n)],
    }


def write(sink: ImportSink, rows: dict, after: int | None, step: int = BATCH) -> None:
    """Everything behind a row: the cursor is the row's number."""
    n = len(rows["id"])
    for start in range(0 if after is None else after + 1, n, step):
        sink.write({name: values[start : start + step] for name, values in rows.items()}, start, start + step - 1)


def count(server: alula.Server, name: str) -> int:
    answer = server.client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")
    return answer[0]["count(*)"]


def late_request(server: alula.Server, name: str, journal: Journal) -> int:
    """Ask for files by their earlier names, as a request would that was long on its way."""
    sent = 0
    for file in ImportLedger(journal).files():
        head, attempt = file.file.removesuffix(".parquet").rsplit(".", 1)
        if int(attempt) and file.state != "done":
            connection = server.client._get_connection()
            connection.do_bulk_insert(name, "", [f"{head}.{int(attempt) - 1}.parquet"])
            sent += 1
    return sent


@pytest.fixture(scope="module")
def imported(default_database, tmp_path_factory):
    """A collection imported by loaders that died at every step: its name, its rows, and the requests that came late."""
    folder = tmp_path_factory.mktemp("import")
    name, rows, journal = "imported_by_the_dying", columns(400), Journal()
    create_with_signs(default_database, name, ALL)
    late, died = 0, []
    for step, when in (*itertools.product(("written", "moved", "submitted", "done"), ("before", "after")), ("", "")):
        ledger = Ledger(journal, step, when)
        sink = ImportSink(
            default_database,
            name,
            ALL,
            stage=str(folder / "stage"),
            folder=folder,
            ledger=ledger,
            load_id="dying",
            file_bytes=1,
        )
        try:
            after = sink.recover()
            late += late_request(default_database, name, journal)
            write(sink, rows, after, 2 * BATCH)
            assert sink.finish() == 400
        except DeathError:
            died.append((step, when))
    assert len(died) == 8
    assert not list(folder.rglob("*.parquet"))
    yield name, rows, late
    default_database.client.drop_collection(name)


def test_loaders_that_die_at_every_step_neither_lose_nor_double_rows(default_database, imported):
    name, rows, late = imported
    assert late > 0
    assert count(default_database, name) == 400
    found = default_database.client.query(name, filter='id != ""', output_fields=["*"], consistency_level="Strong")
    assert {row["id"] for row in found} == set(rows["id"])


def test_every_type_arrives_as_it_was_written(default_database, imported):
    name, rows, _ = imported
    found = default_database.client.query(name, filter='id != ""', output_fields=["*"], consistency_level="Strong")
    by_id = {row["id"]: row for row in found}
    for i, id_ in enumerate(rows["id"]):
        row = by_id[id_]
        assert row["signs"][0] == rows["signs"][i].tobytes()
        for field in ("vector", "word", "tags", *TYPES):
            assert row[field] == rows[field][i], field
        assert row["about"] == json.loads(rows["about"][i])
        assert row.get("colour") == ("red" if i % 2 else None)


def test_a_collection_with_rows_is_refused(default_database, imported, tmp_path):
    sink = ImportSink(
        default_database,
        imported[0],
        ALL,
        stage=str(tmp_path),
        folder=tmp_path,
        ledger=ImportLedger(Journal()),
        load_id="second",
    )
    with pytest.raises(UsageError, match="contains 400 rows already"):
        sink.recover()


def test_a_part_whose_task_the_server_has_forgotten_is_found_by_its_rows(default_database, imported, tmp_path):
    name, rows, _ = imported
    writer = ImportFileWriter(tmp_path / "part.parquet", ALL, 0)
    writer.write(rows, 399)
    writer.close()
    file = StagingArea(str(tmp_path), None, "alula-old", {}).upload(tmp_path / "part.parquet", "000000.0.parquet")
    ledger = ImportLedger(Journal())
    ledger.record(ImportFile(0, 0, 399, 400, file, task=7))
    sink = ImportSink(default_database, name, ALL, stage=str(tmp_path), folder=tmp_path, ledger=ledger, load_id="old")
    assert sink.recover() == 399
    assert sink.finish() == 400
    assert ledger.files()[0].state == "done"
    assert count(default_database, name) == 400


def test_a_server_killed_in_the_middle_and_a_loader_too(own_server, tmp_path, monkeypatch):
    """The server dies with a part begun and one written; the loader, about to ask for the first again."""
    monkeypatch.setattr(tasks, "STALLED_SECONDS", 60)
    n, half = 100_000, 50_000
    rows = {name: values for name, values in columns(n, strings=False).items() if name in {"id", "signs"}}
    journal, submitted, deaths = Journal(), threading.Event(), []

    class Watching(Ledger):
        def record(self, file):
            super().record(file)
            if file.state == "submitted":
                submitted.set()

    milvus = own_server()
    with alula.connect(milvus.uri) as server, ThreadPoolExecutor(1) as loader:
        create_with_signs(server, "killed", SMALL)

        def load() -> int:
            for ledger in (Watching(journal, "moved"), Watching(journal)):
                sink = ImportSink(
                    server,
                    "killed",
                    SMALL,
                    stage=str(tmp_path / "stage"),
                    folder=tmp_path,
                    ledger=ledger,
                    load_id="k",
                    file_bytes=1,
                )
                try:
                    write(sink, rows, sink.recover(), half)
                    return sink.finish()
                except DeathError:
                    deaths.append(ledger.files())
            raise AssertionError("both loaders died")

        result = loader.submit(load)
        submitted.wait()
        milvus.kill()
        milvus.start()
        assert result.result() == n
        assert [[file.state for file in files] for files in deaths] == [["submitted", "written"]]
        assert count(server, "killed") == n
        for start in range(0, n, 16_384):
            wanted = set(range(start, min(n, start + 16_384)))
            found = server.client.query(
                "killed",
                filter=f"id >= {start} and id < {start + 16_384}",
                output_fields=["id"],
                limit=16_384,
                consistency_level="Strong",
            )
            assert {row["id"] for row in found} == wanted


def test_what_the_server_cannot_import_is_told_with_its_reason(default_database, collection_name, tmp_path):
    create_with_signs(default_database, collection_name, ALL)
    sink = ImportSink(
        default_database,
        collection_name,
        tuple(field for field in ALL if field.name != "d"),
        stage=str(tmp_path),
        folder=tmp_path,
        ledger=ImportLedger(Journal()),
        load_id="bad",
    )
    sink.recover()
    write(sink, columns(BATCH), None)
    with pytest.raises(ServerError, match=r"could not import .*000000.0.parquet.*'?d'?"):
        sink.finish()
    assert count(default_database, collection_name) == 0
    default_database.client.drop_collection(collection_name)


@pytest.fixture(scope="module")
def bucket():
    import os

    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "k", "secret": "s", "endpoint_url": f"http://{host}:{port}"}
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    boto3.client(
        "s3", endpoint_url=options["endpoint_url"], aws_access_key_id="k", aws_secret_access_key="s", region_name="x"
    ).create_bucket(Bucket="milvus", CreateBucketConfiguration={"LocationConstraint": "x"})
    yield options
    server.stop()


def test_a_stage_in_s3(bucket, tmp_path):
    stage = StagingArea("s3://milvus/import/", None, "alula-s3", bucket)
    writer = ImportFileWriter(tmp_path / "part.parquet", SMALL, 0)
    writer.write(columns(BATCH, strings=False), BATCH - 1)
    writer.close()
    assert stage.upload(tmp_path / "part.parquet", "000000.0.parquet") == "import/alula-s3/000000.0.parquet"
    stage.upload(tmp_path / "part.parquet", "000001.0.parquet")
    assert stage.copy("000000.0.parquet", "000000.1.parquet") == "import/alula-s3/000000.1.parquet"
    stage.keep_of("000000.", "000000.1.parquet")
    assert stage.column("000000.1.parquet", "id").to_pylist() == list(range(BATCH))
    assert stage.column("000001.0.parquet", "id").to_pylist() == list(range(BATCH))
    with pytest.raises(ServerError, match="is not there"):
        stage.column("000000.0.parquet", "id")
    stage.remove()
    with pytest.raises(ServerError, match="is not there"):
        stage.column("000000.1.parquet", "id")


def test_the_server_is_given_the_key_in_its_bucket(default_database, collection_name, bucket, tmp_path):
    create_with_signs(default_database, collection_name, SMALL)
    sink = ImportSink(
        default_database,
        collection_name,
        SMALL,
        stage="s3://milvus/import",
        stage_options=bucket,
        folder=tmp_path,
        ledger=ImportLedger(Journal()),
        load_id="s3",
    )
    sink.recover()
    write(sink, columns(BATCH, strings=False), None)
    with pytest.raises(ServerError, match=r"'import/alula-s3/000000.0.parquet'.*no such file"):
        sink.finish()
    default_database.client.drop_collection(collection_name)


def test_a_stage_that_cannot_be_opened(tmp_path):
    with pytest.raises(UsageError, match="cannot be opened"):
        StagingArea("nosuch://place", None, "alula-x", {})


def test_a_folder_that_the_server_sees_elsewhere(tmp_path):
    (tmp_path / "part").write_text("")
    stage = StagingArea(str(tmp_path / "stage"), "/var/lib/milvus/import/", "alula-x", {})
    assert stage.upload(tmp_path / "part", "p") == "/var/lib/milvus/import/alula-x/p"
    assert Path(tmp_path / "stage/alula-x/p").exists()


def test_sparse_vectors_are_json_as_milvus_documents_them(tmp_path):
    rows = sp.csr_array(np.array([[0, 0.5, 0], [0, 0, 0], [1, 0, 2.5]], np.float32))
    writer = ImportFileWriter(tmp_path / "p.parquet", [FieldSpec("sparse", "SPARSE_FLOAT_VECTOR", 0)], 0)
    writer.write({"sparse": rows}, 2)
    writer.close()
    written = pq.read_table(tmp_path / "p.parquet")["sparse"].to_pylist()
    assert [json.loads(text) for text in written] == [{"1": 0.5}, {}, {"0": 1.0, "2": 2.5}]


def test_a_type_without_a_form_in_parquet_is_refused(tmp_path):
    with pytest.raises(UnsupportedError, match="'v' \\(INT8_VECTOR\\) cannot be imported"):
        ImportFileWriter(tmp_path / "p.parquet", [FieldSpec("v", "INT8_VECTOR", 0)], 0)


def test_who_can_import(default_database, lite):
    assert can_import(default_database)
    assert not can_import(lite)


def test_an_import_is_chosen_only_where_it_can_be_and_pays():
    can = {"rows": IMPORT_ROWS, "empty": True, "staged": True, "importable": True}
    assert choose(**can) == "import"
    for less in ({"rows": IMPORT_ROWS - 1}, {"rows": None}, {"empty": False}, {"staged": False}, {"importable": False}):
        assert choose(**(can | less)) == "insert"
