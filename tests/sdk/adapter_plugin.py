"""A pytest plugin for the tests of Milvus Lite 3: the servers that they start stand behind the gateway.

For programs that run those tests (``-p tests.sdk.adapter_plugin``), not for these ones.
"""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from milvus_lite.adapter.grpc import server as adapter
from pymilvus.client import grpc_handler

from tests.engines.gateway.running import RunningGateway

start_directly = adapter.start_server_in_thread


class _Both:
    """Milvus Lite's server and the gateway: stopping one stops the other."""

    def __init__(self, server: Any, gateway: RunningGateway) -> None:
        self._server, self._gateway = server, gateway

    def stop(self, grace: float | None = None) -> Any:
        self._gateway.__exit__(None, None, None)
        return self._server.stop(grace)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)


def _start_behind_gateway(*args: Any, **kwargs: Any) -> tuple[Any, Any, int]:
    server, database, port = start_directly(*args, **kwargs)
    gateway = RunningGateway(f"http://127.0.0.1:{port}")
    gateway.__enter__()
    return _Both(server, gateway), database, gateway.port


adapter.start_server_in_thread = _start_behind_gateway
# pymilvus looks twice a second whether an index is there: most of the time of these tests
grpc_handler.time = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: time.sleep(min(seconds, 0.01))})


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Those tests lie in a package called "tests", too."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
