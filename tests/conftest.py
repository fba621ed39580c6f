"""The real servers, as fixtures: each starts when the first test asks for it and is stopped even if tests fail."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.servers.lite import LiteDatabase
from tests.servers.standalone import MilvusStandalone


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[MilvusStandalone]:
    """Milvus 2.3.5 standalone: ``.uri``, ``.client()``; no users, no TLS."""
    with MilvusStandalone() as server:
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


@pytest.fixture
def collection_name() -> str:
    """A name that no other test uses."""
    return f"alula_{uuid.uuid4().hex[:12]}"
