"""Loads by the workers of a real Ray cluster: exactly the source's rows, whoever is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tenacity import retry, retry_if_exception_message, stop_after_attempt

import alula
from alula.errors import DataError, UsageError
from alula.ingest import target
from alula.ingest.journal import Journal
from alula.sources import ArraySource
from alula.sources.source_slice import SourceSlice
from tests.tiny_encoders import random_vectors, write_drq
from tests.waiting import wait_until

ROWS, DIM, BATCH = 8_000, 16, 512
BAD = [5, 6, ROWS - 1]  # rows with NaN
AGAIN = [4000, 4001]  # rows with the id of an earlier one
SECRET = "a-token-that-nobody-may-read"


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory):
    """A Ray cluster of two cores on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # listen at 127.0.0.1 alone
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'alula[ray]'")
    from alula.ingest.ray.engine import RayCluster

    @retry(
        retry=retry_if_exception_message(match=".*timed out during startup"),  # Ray waits 30 s, on a busy machine too
        stop=stop_after_attempt(10),
        before_sleep=lambda _: ray.shutdown(),
        reraise=True,
    )
    def start():
        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 << 20,
        )

    start()
    yield RayCluster(unit_batches=1)
    ray.shutdown()


@pytest.fixture(scope="module")
def drq(tmp_path_factory):
    return write_drq(tmp_path_factory.mktemp("encoders") / "drq.onnx", input_dim=DIM)


@pytest.fixture(scope="module")
def rows():
    """Rows whose ids are in no order."""
    rng = np.random.default_rng(3)
    vectors = random_vectors(ROWS, DIM, seed=2)
    return {"id": rng.permutation(ROWS) * 3 + 7, "year": rng.integers(1900, 2100, ROWS), "embedding": vectors}


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(target, "BATCH_ROWS", BATCH)


@pytest.fixture
def collection(milvus_server, drq, collection_name, small_batches):
    with alula.connect(milvus_server.uri, token=SECRET) as server:
        made = alula.Collection.create(
            server, collection_name, encoder=drq.path, index_type="DRQ", columns=["year:INT64"]
        )
        yield made
        made.drop()


def write(path, rows):
    columns = {**rows, "embedding": pa.FixedSizeListArray.from_arrays(pa.array(rows["embedding"].ravel()), DIM)}
    pq.write_table(pa.table(columns), path)
    return path


def check(collection, drq, rows, without=()):
    """Every row is there once, as brute force says."""
    stored = collection.server.client.query(
        collection.name, filter="id >= 0", output_fields=["*"], limit=ROWS + 100, consistency_level="Strong"
    )
    stored.sort(key=lambda row: row["id"])
    kept = np.setdiff1d(np.arange(ROWS), without)
    kept = kept[np.argsort(rows["id"][kept])]
    vectors = rows["embedding"][kept]
    assert collection.count() == len(kept)
    np.testing.assert_array_equal([row["id"] for row in stored], rows["id"][kept])
    np.testing.assert_array_equal([row["year"] for row in stored], rows["year"][kept])
    np.testing.assert_array_equal(np.array([row["embedding"] for row in stored], np.float32), vectors)
    assert [bytes(row["embedding__drq_sign"][0]) for row in stored] == [s.tobytes() for s in drq.row_signs(vectors)]


def workers():
    """The processes of Ray's that load."""
    found, queue = [], [os.getpid()]
    while queue:
        pid = queue.pop()
        try:
            for task in Path(f"/proc/{pid}/task").glob("*"):
                queue += [int(child) for child in (task / "children").read_text().split()]
            if "MapWorker" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
        except OSError:  # it has just ended
            continue
    return found


def test_all_rows_arrive_but_for_the_bad_ones_and_no_secret_is_logged(collection, on_ray, drq, rows, tmp_path):
    spoiled = rows["embedding"].copy()
    spoiled[BAD, 3] = np.nan
    ids = rows["id"].copy()
    ids[AGAIN] = ids[2]
    file = write(tmp_path / "rows.parquet", {**rows, "id": ids, "embedding": spoiled})
    bad = sorted(BAD + AGAIN)
    letters = tmp_path / "dead.parquet"
    seen = []
    report = collection.load(
        file, engine=on_ray, max_errors=5, dead_letters=letters, progress=lambda s: seen.append((s.read, s.written))
    )
    check(collection, drq, rows, without=bad)
    assert (report.rows, report.total, report.written, report.bad) == (ROWS - 5, ROWS - 5, ROWS - 5, 5)
    assert report.verification.compared == Journal.SAMPLE
    assert not report.verification.problem
    assert pq.read_table(letters)["alula_row"].to_pylist() == bad
    assert len({written for _, written in seen}) > 10  # it was told on the way, not only at the end
    assert seen[-1] == (ROWS, ROWS - 5)
    import ray

    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    files = [log for log in logs.rglob("*") if log.is_file()]
    assert files
    assert not [log for log in files if SECRET.encode() in log.read_bytes()]
    with pytest.raises(DataError, match=r"2 rows of .* more than max_errors=1"):  # the words of a worker
        collection.load(ArraySource(spoiled, {"id": rows["id"], "year": rows["year"]}), engine=on_ray, max_errors=1)


def test_a_worker_is_killed(collection, on_ray, drq, rows, tmp_path):
    killed = []

    def kill(status):
        if status.written > 1000 and not killed:
            killed.extend(workers())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    journal = Journal(tmp_path / "journal")
    source = ArraySource(rows["embedding"], {"id": rows["id"], "year": rows["year"]})
    report = collection.load(source, engine=on_ray, journal=journal, progress=kill)
    assert killed
    assert journal.doubtful  # what came after the loss was looked at again
    assert not report.verification.problem
    check(collection, drq, rows)


DRIVER = """
import sys
from pathlib import Path
import alula
from alula.ingest import target
from alula.ingest.journal import Journal
from alula.ingest.ray.engine import RayCluster

uri, name, encoder, rows, journal, address = sys.argv[1:]
target.BATCH_ROWS = {batch}
with alula.connect(uri) as server:
    collection = alula.Collection.open(server, name, encoder=encoder)
    collection.load(rows, journal=Journal(Path(journal)), engine=RayCluster(address, unit_batches=1))
"""


def test_the_driver_is_killed(collection, on_ray, drq, rows, tmp_path):
    import ray

    file, journal = write(tmp_path / "rows.parquet", rows), tmp_path / "journal"
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-c", textwrap.dedent(DRIVER.format(batch=BATCH)), collection.server.uri]
    command += [collection.name, str(drq.path), str(file), str(journal), address]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: collection.count() >= 1500 or driver.poll() is not None, "1,500 rows")
        driver.kill()
        said = driver.communicate()[1].decode()
        assert driver.returncode == -signal.SIGKILL, said
    finally:
        driver.kill()
    # at once, so that the workers of the killed driver may still write
    with_journal = Journal(journal)
    assert 0 < with_journal.read_rows < ROWS
    with pytest.raises(UsageError, match="another engine"):
        collection.load(file, journal=with_journal)
    report = collection.load(file, journal=with_journal, engine=on_ray)
    assert report.rows == report.total == ROWS
    assert report.written < ROWS
    assert with_journal.doubtful
    assert not report.verification.problem
    check(collection, drq, rows)


def test_what_cannot_be_loaded_by_ray(collection, on_ray, lite, drq, rows, tmp_path):
    embedded = alula.Collection.create(lite, "embedded", encoder=drq.path, index_type="DRQ", columns=["year:INT64"])
    source = ArraySource(rows["embedding"][:50], {"id": rows["id"][:50], "year": rows["year"][:50]})
    with pytest.raises(UsageError, match="Milvus Lite admits one process"):
        embedded.load(source, engine=on_ray)
    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"id": 1, "year": 2, "embedding": %s}\n' % ([0.5] * DIM))
    with pytest.raises(UsageError, match=r"rows\.jsonl cannot be cut into slices"):
        collection.load(lines, engine=on_ray)
    collection.load(source)
    with pytest.raises(UsageError, match='leave mode="insert" out'):
        collection.load(source, engine=on_ray, mode="insert")
    assert collection.count() == 50


def test_no_cluster():
    code = "from alula.ingest.ray.engine import RayCluster; RayCluster('127.0.0.1:1')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UsageError: There is no Ray cluster at '127.0.0.1:1' (" in done.stderr


def test_alula_does_without_ray():
    """Nothing imports Ray before it is asked for, and without it there is a sentence."""
    code = """
    import sys
    import alula, alula.cli
    assert "ray" not in sys.modules
    sys.modules["ray"] = None
    import alula.ingest.ray.engine
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("which is not installed: pip install 'alula[ray]'.")


@pytest.mark.parametrize(("first", "last"), [(0, 9), (3, 3), (95, 99), (10, 70), (0, 99)])
def test_a_part_is_these_rows_with_their_numbers(first, last):
    vectors = random_vectors(100)
    source = ArraySource(vectors, {"id": range(100)})
    batches = list(SourceSlice(source, first, last).batches(10))
    assert [n for batch in batches for n in range(batch.span[0], batch.span[1] + 1)] == list(range(first, last + 1))
    np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in batches]), vectors[first : last + 1])
    assert [i for batch in batches for i in batch.columns["id"].to_pylist()] == list(range(first, last + 1))
