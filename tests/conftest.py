"""The real servers, as fixtures: each starts when the first test asks for it and is stopped even if tests fail."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

import alula
from tools.servers.lite import LiteDatabase
from tools.servers.standalone import MilvusStandalone

pytest_plugins = ("tests.fixtures.command_line", "tests.fixtures.gateway", "tests.fixtures.object_store")


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[MilvusStandalone]:
    """Milvus 2.3.5 standalone: ``.uri``, ``.client()``; no users, no TLS."""
    # a read of strong consistency waits for the next tick: 200 ms by default, most of the time of many tests
    with MilvusStandalone(settings={"proxy.timeTickInterval": 50}) as server:
        yield server


@pytest.fixture(scope="session")
def milvus_server_with_auth() -> Iterator[MilvusStandalone]:
    """Milvus 2.3.5 standalone with users and TLS: ``.client_options`` has all that a client needs."""
    with MilvusStandalone(auth=True, tls=True) as server:
        yield server


@pytest.fixture
def lite_uri() -> Iterator[str]:
    """A path to an embedded database that does not exist yet; released and removed afterwards."""
    with LiteDatabase() as database:
        yield database.uri


@pytest.fixture(scope="session")
def shared_lite_uri() -> Iterator[str]:
    """A path to one embedded database for the whole session: use ``collection_name`` in it."""
    with LiteDatabase() as database:
        yield database.uri


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[alula.Server]:
    """An embedded database for one test module, connected."""
    with alula.connect(str(tmp_path_factory.mktemp("lite") / "module.db")) as server:
        yield server


@pytest.fixture(scope="module")
def standalone(milvus_server: MilvusStandalone) -> Iterator[alula.Server]:
    """Milvus 2.3.5 standalone, connected."""
    with alula.connect(milvus_server.uri) as server:
        yield server


@pytest.fixture(scope="module")
def database(milvus_server: MilvusStandalone) -> Iterator[alula.Server]:
    """A database of its own on Milvus 2.3.5 standalone, connected; dropped afterwards with all that is in it."""
    name = f"alula_{uuid.uuid4().hex[:12]}"
    client = milvus_server.client()
    client.create_database(name)
    with alula.connect(milvus_server.uri, database=name) as server:
        yield server
        for collection in server.client.list_collections():
            server.client.drop_collection(collection)
    client.drop_database(name)


@pytest.fixture(scope="module", params=["lite", "standalone"])
def engine(request: pytest.FixtureRequest) -> alula.Server:
    """Each real engine in turn, connected."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def collection_name() -> str:
    """A name that no other test uses."""
    return f"alula_{uuid.uuid4().hex[:12]}"
