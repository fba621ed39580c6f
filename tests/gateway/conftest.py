"""The real servers with ports, and the gateway in front of each."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest

from tests.gateway.running import LOOPBACK
from tests.servers.cutting_proxy import CuttingProxy
from tests.servers.gateway import GatewayProgram
from tests.servers.lite import LiteServer
from tests.servers.standalone import MilvusStandalone


@pytest.fixture(scope="module", autouse=True)
def _quiet_pymilvus() -> Iterator[None]:
    """Without the tracebacks that pymilvus logs for every refusal, of which these tests make many."""
    logger = logging.getLogger("pymilvus")
    was = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(was)


@pytest.fixture(scope="session")
def lite_server() -> Iterator[LiteServer]:
    """Milvus Lite's engine on a port: ``.uri``."""
    with LiteServer() as server:
        yield server


@pytest.fixture(scope="session")
def gateway_to_lite(lite_server: LiteServer) -> Iterator[GatewayProgram]:
    """The gateway in front of it: ``.uri``."""
    with GatewayProgram(lite_server.uri) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def gateway_to_standalone(milvus_server: MilvusStandalone) -> Iterator[GatewayProgram]:
    """The gateway in front of Milvus 2.3.5 standalone: ``.uri``."""
    with GatewayProgram(milvus_server.uri) as gateway:
        yield gateway


@pytest.fixture
def proxy(milvus_server: MilvusStandalone) -> Iterator[CuttingProxy]:
    """What stands between a gateway and Milvus 2.3.5, and can be pointed elsewhere: ``.uri``."""
    with CuttingProxy(milvus_server.port) as proxy:
        yield proxy


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that refuses connections."""
    with socket.socket() as closed:
        closed.bind((LOOPBACK, 0))
        yield closed.getsockname()[1]
