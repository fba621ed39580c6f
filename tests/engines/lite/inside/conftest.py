"""Tests of Milvus Lite 3, of which the environment of the other tests has version 2.5.

Where that is so, pytest collects them here, runs them in a process of their own that finds Milvus Lite 3, and reports
here what came of each. ``-k``, node ids and the like choose them as always.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib import metadata
from pathlib import Path

import pytest

import alula.lite
from tests.engines.lite.inside.mirror import Mirror
from tools.servers import lite3
from tools.servers.lite import LiteDatabase

HERE = Path(__file__).parent
IS_HERE = metadata.version("milvus-lite") == lite3.VERSION
REPORTS = "ALULA_TESTS_LITE3_REPORTS"  # the file to which the inner process writes what came of its tests


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if IS_HERE:
        return
    files = defaultdict(lambda: Elsewhere(config.rootpath))  # one process a file, since workers share files out
    items[:] = [files[item.path].take(item) if item.path.is_relative_to(HERE) else item for item in items]


def pytest_runtest_logreport(report):
    if REPORTS in os.environ:
        told = {"id": report.nodeid, "when": report.when, "outcome": report.outcome, "text": report.longreprtext}
        with Path(os.environ[REPORTS]).open("a") as file:
            file.write(json.dumps(told) + "\n")


class Elsewhere:
    """The tests of a file, run together in another process when the first of them is due."""

    def __init__(self, root):
        self._root, self._ids, self._reports, self._output = root, [], None, ""

    def take(self, item):
        """What stands for a test here."""
        self._ids.append(item.nodeid)
        return TestElsewhere.from_parent(item.parent, name=item.name, nodeid=item.nodeid, elsewhere=self)

    def reports(self, nodeid):
        """What came of each phase of one test."""
        if self._reports is None:
            self._reports = {}
            self._run()
        reports = self._reports.get(nodeid, [])
        if not any(report["when"] == "teardown" for report in reports):
            raise FailedElsewhere(f"The process ended before this test did:\n{self._output}")
        return reports

    def _run(self):
        with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as file:
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", *self._ids]
            environment = {**lite3.environment(), REPORTS: file.name}
            done = subprocess.run(command, cwd=self._root, env=environment, capture_output=True, text=True, check=False)
            self._output = done.stdout + done.stderr
            for line in file:
                report = json.loads(line)
                self._reports.setdefault(report["id"], []).append(report)


class TestElsewhere(pytest.Item):
    """One test of this folder, reported here."""

    __test__ = False

    def __init__(self, *, elsewhere, **arguments):
        super().__init__(**arguments)
        self._elsewhere = elsewhere
        self.add_marker(pytest.mark.timeout(0))  # the first one waits for all, each of which has its limit

    def runtest(self):
        for report in self._elsewhere.reports(self.nodeid):
            if report["outcome"] == "skipped":
                pytest.skip(report["text"])
            if report["outcome"] == "failed":
                raise FailedElsewhere(report["text"])

    def repr_failure(self, excinfo, style=None):
        return str(excinfo.value) if isinstance(excinfo.value, FailedElsewhere) else super().repr_failure(excinfo)

    def reportinfo(self):
        return self.path, None, self.name


class FailedElsewhere(Exception):
    """A test failed in the other process."""


@pytest.fixture(autouse=True)
def registered():
    """Alula's index types, in Milvus Lite for the time of a test."""
    alula.lite.register()
    yield
    alula.lite.unregister()


@pytest.fixture
def database():
    """A fresh database in this process."""
    with LiteDatabase() as database:
        yield database


@pytest.fixture
def mirror(database):
    """Make collections in the database, each with what it should hold."""
    return lambda *args, **kwargs: Mirror(database, *args, **kwargs)
