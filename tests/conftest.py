"""Which tests need a server and which take long, read off their fixtures and folders; and what a skipped one lacks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# As in `alula.cli.main`, and before gRPC is imported: an idle connection's GOAWAY is printed on stderr at any time,
# also into what another test of the process captures.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

pytest_plugins = (
    "tests.fixtures.browser",
    "tests.fixtures.chance",
    "tests.fixtures.command_line",
    "tests.fixtures.engines",
    "tests.fixtures.gateway",
    "tests.fixtures.lite_start",
    "tests.fixtures.object_store",
)

TESTS = Path(__file__).parent

# A test that uses one of these, itself or through another fixture, runs against an engine: marked `server`.
ENGINES = {
    "database",
    "default_database",
    "engine",
    "gateway_to_lite",
    "gateway_to_standalone",
    "in_lite",
    "in_server",
    "lite",
    "lite_database",
    "lite_server",
    "lite_uri",
    "milvus_server",
    "milvus_server_with_auth",
    "own_server",
    "place",
    "shared_lite_uri",
    "standalone",
    "starts_engine",
}
SERVER_FOLDERS = ("engines/lite/inside",)

# A test that uses one of these, or lies in one of the folders, takes long: marked `slow`.
SLOW = {"imported", "imports", "installed_package", "node_of_tests", "on_ray", "own_server", "takes_long"}
SLOW_FOLDERS = ("deploy", "faults", "sdk")

NAMED = 3  # skipped tests for one reason, listed by name


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests, and sort them: slow files first, since workers take the files one after another."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        fixtures |= {word for value in parameters if isinstance(value, str) for word in value.split()}
        folder = item.path.relative_to(TESTS).parent.as_posix()
        if fixtures & ENGINES or folder.startswith(SERVER_FOLDERS):
            item.add_marker("server")
        if fixtures & SLOW or folder.startswith(SLOW_FOLDERS):
            item.add_marker("slow")
    ranks: dict[Path, int] = {}
    for item in items:
        ranks[item.path] = min(ranks.get(item.path, 2), _rank(item))
    items.sort(key=lambda item: ranks[item.path])


def _rank(item: pytest.Item) -> int:
    """Slow tests first, then those that need a server: the last ones are short, and keep all workers busy."""
    return 0 if item.get_closest_marker("slow") else 1 if item.get_closest_marker("server") else 2


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what skipped tests lack, once each, and the tests if they are few."""
    skipped: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        skipped.setdefault(str(report.longrepr[2]).removeprefix("Skipped: "), []).append(report.nodeid)
    if skipped:
        terminalreporter.section("skipped, for want of")
        for reason, tests in sorted(skipped.items(), key=lambda item: -len(item[1])):
            names = ", ".join(tests) if len(tests) <= NAMED else f"{len(tests)} tests"
            terminalreporter.line(f"{reason} ({names})")
