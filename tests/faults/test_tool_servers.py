"""The servers that tests run against start, answer, and are gone afterwards."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from tests.waiting import wait_until
from tools.servers import cache, standalone
from tools.servers.lite import LiteDatabase
from tools.servers.standalone import MilvusStandalone, ServerError

ROOT = Path(__file__).parents[2]
ROWS = [{"id": i, "vector": [float(i), 1.0, 0.0, 0.0]} for i in range(10)]


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def create_insert_search(client: MilvusClient, name: str) -> None:
    client.create_collection(name, dimension=4, metric_type="L2", consistency_level="Strong")
    client.insert(name, ROWS)
    hits = client.search(name, [[7.2, 1.0, 0.0, 0.0]], limit=2)
    assert [hit["id"] for hit in hits[0]] == [7, 8]


def test_standalone(milvus_server, collection_name):
    client = milvus_server.client()
    assert client.get_server_version().startswith("v2.3.5")
    create_insert_search(client, collection_name)
    client.drop_collection(collection_name)


def test_standalone_with_auth_and_tls(milvus_server_with_auth, collection_name):
    server = milvus_server_with_auth
    create_insert_search(server.client(), collection_name)
    assert server.uri.startswith("https://")
    with pytest.raises(MilvusException):
        server.client(password="wrong", timeout=3)
    with pytest.raises(MilvusException):
        MilvusClient(server.uri.replace("https", "http"), timeout=3)


def test_standalone_keeps_its_data_and_address_and_is_gone_after_stop(tmp_path, collection_name):
    server = MilvusStandalone(tmp_path / "data")
    with server:
        uri, first = server.uri, server.pid
        create_insert_search(server.client(), collection_name)
        server.kill()
        assert not is_alive(first)
        assert server.pid is None

        server.start()
        second = server.pid
        assert server.uri == uri
        assert server.client().has_collection(collection_name)
    assert not is_alive(second)
    assert (tmp_path / "data").exists()


def test_temporary_data_are_removed_even_if_the_block_raises():
    seen = []

    def fail_with_a_server_running():
        with MilvusStandalone() as server:
            seen.extend([server.pid, server.data_dir])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_with_a_server_running()
    pid, data_dir = seen
    assert not is_alive(pid)
    assert not data_dir.exists()


def test_two_standalones_at_once(milvus_server):
    with MilvusStandalone() as other:
        assert other.uri != milvus_server.uri
        assert other.client().list_collections() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_standalone_dies_with_its_parent():
    program = (
        "from tools.servers.standalone import MilvusStandalone\n"
        "server = MilvusStandalone()\n"
        "server.start()\n"
        "print(server.pid, server.data_dir, flush=True)\n"
        "input()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    pid, data_dir = parent.stdout.readline().split()
    assert is_alive(int(pid))
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_alive(int(pid)), "the server to end")
    subprocess.run(["rm", "-rf", data_dir], check=True)


def test_a_server_that_cannot_start_names_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(standalone, "ATTEMPTS", 1)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rocksmq").write_text("a file where Milvus wants a directory")
    server = MilvusStandalone(tmp_path)
    with pytest.raises(ServerError, match=r"while it started\. Its log is .*server\.log"):
        server.start()
    assert server.pid is None
    assert server.log_file.exists()


def test_a_package_that_pip_cannot_fetch_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("ALULA_CACHE", str(tmp_path))
    monkeypatch.setattr(standalone, "_install", lambda directory: cache.run("Milvus", "fetch", ["false"]))
    with pytest.raises(ServerError, match="Could not install Milvus for the tests: failed to fetch with `false`"):
        standalone.install()
    assert [path.name for path in (tmp_path / "servers").iterdir()] == [f"milvus-{standalone.VERSION}.lock"]


def test_by_hand_until_interrupted(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.servers.standalone", "--data", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        uri = process.stdout.readline().strip()
        assert MilvusClient(uri).list_collections() == []
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 0
        assert not is_alive(int(children[0]))
    finally:
        process.kill()
        process.wait()


def test_lite(lite_uri, collection_name):
    client = MilvusClient(lite_uri)
    create_insert_search(client, collection_name)


def test_shared_lite(shared_lite_uri, collection_name):
    client = MilvusClient(shared_lite_uri)
    create_insert_search(client, collection_name)


def test_lite_keeps_its_data_over_a_release_and_is_gone_after_stop(starts_engine, collection_name):
    with LiteDatabase() as database:
        create_insert_search(database.client(), collection_name)
        first = database.pid
        assert is_alive(first)
        database.release()
        assert not is_alive(first)
        assert database.pid is None

        assert database.client().has_collection(collection_name)
        second = database.pid
        directory = database.path.parent
    assert not is_alive(second)
    assert not directory.exists()
