"""The real engines behind the rules of each later version of Milvus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import alula
from tests.small_collections import DIM
from tests.tiny_encoders import TinyDrq, write_drq
from tools.servers.lite import LiteServer, connected
from tools.servers.standalone import MilvusStandalone
from tools.servers.versions.limits import FlushRate
from tools.servers.versions.proxy import PROFILES, VersionProxy

FLUSH_SECONDS = 1.0  # instead of Milvus's ten


@pytest.fixture(scope="module", params=PROFILES)
def profile(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def on_lite(profile: str, lite_server: LiteServer) -> Iterator[VersionProxy]:
    """Milvus Lite's engine, which has several vector fields and sparse ones."""
    with VersionProxy(lite_server.uri, profile) as proxy:
        proxy.rule(FlushRate).seconds = FLUSH_SECONDS
        proxy.rule(FlushRate).fewest = 1
        yield proxy


@pytest.fixture(scope="module")
def on_standalone(profile: str, milvus_server: MilvusStandalone) -> Iterator[VersionProxy]:
    """Milvus 2.3.5, which has aliases, partitions, renaming and bulk import."""
    with VersionProxy(milvus_server.uri, profile) as proxy:
        proxy.rule(FlushRate).seconds = FLUSH_SECONDS
        proxy.rule(FlushRate).fewest = 1
        yield proxy


@pytest.fixture(scope="module")
def lite(on_lite: VersionProxy) -> Iterator[alula.Server]:
    with connected(on_lite.uri) as server:
        yield server


@pytest.fixture(scope="module")
def standalone(on_standalone: VersionProxy, database: alula.Server) -> Iterator[alula.Server]:
    """In a database of the module: a database travels with each call, in one way or another."""
    with alula.connect(on_standalone.uri, database=database.login["database"]) as server:
        yield server


@pytest.fixture(scope="session")
def drq(tmp_path_factory: pytest.TempPathFactory) -> TinyDrq:
    return write_drq(tmp_path_factory.mktemp("encoders") / "profiles.onnx", input_dim=DIM)
