"""A bulk import ends with each row once, on servers that list imports without their numbers and files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from alula.index_types import FieldSpec
from alula.ingest.bulk_import.delivery import ImportLedger
from alula.ingest.bulk_import.sink import ImportSink
from alula.ingest.bulk_import.tasks import ImportTasks
from alula.ingest.journal import Journal
from tests.plain_collections import create_with_signs
from tools.servers.lite import connected
from tools.servers.versions.imports import RepeatedImports
from tools.servers.versions.proxy import PROFILES, VersionProxy
from tools.servers.versions.rule import parse

FIELDS = (FieldSpec("id", "INT64", 8), FieldSpec("signs", "BINARY_VECTOR", 8, {"dim": 64}))
BATCH = 50
REMEMBERING = ("2.6.24", "3.0.2")  # versions that know a request by its key
ROWS = 3 * BATCH  # each batch is a file


class DeathError(Exception):
    """The loader ends here, as by kill -9."""


class DyingLedger(ImportLedger):
    """A ledger whose loader dies as it is about to record the answer to a request for a file."""

    def __init__(self, journal, number):
        super().__init__(journal)
        self._number = number

    def record(self, file):
        if file.number == self._number and file.state == "submitted":
            raise DeathError
        super().record(file)


def load(server, name, folder, ledger):
    """One run of a load, from where the last one ended; returns the number of rows."""
    sink = ImportSink(
        server,
        name,
        FIELDS,
        stage=str(folder / "stage"),
        folder=folder,
        ledger=ledger,
        load_id=name,
        file_bytes=1,
    )
    after = sink.recover()
    signs = np.random.default_rng(1).integers(0, 256, (ROWS, 8), dtype=np.uint8)
    for start in range(0 if after is None else after + 1, ROWS, BATCH):
        rows = slice(start, start + BATCH)
        sink.write({"id": np.arange(ROWS)[rows], "signs": signs[rows]}, start, start + BATCH - 1)
    return sink.finish()


def imported(uri, profile, folder):
    """Import into a new collection with a loader that dies, and return the ids in it."""
    name = f"imported_{profile.replace('.', '_')}"
    folder.mkdir()
    with VersionProxy(uri, profile) as proxy, connected(proxy.uri) as server:
        create_with_signs(server, name, FIELDS)
        try:
            journal = Journal()
            with pytest.raises(DeathError):
                load(server, name, folder, DyingLedger(journal, 1))
            assert load(server, name, folder, ImportLedger(journal)) == ROWS
            if proxy.has(RepeatedImports):
                assert proxy.rule(RepeatedImports).repeated == 1
            found = server.client.query(name, filter="id >= 0", output_fields=["id"], consistency_level="Strong")
            return sorted(row["id"] for row in found)
        finally:
            server.client.drop_collection(name)


@pytest.fixture(scope="module")
def imports(milvus_server, tmp_path_factory):
    """All profiles at once, as each waits for the engine most of the time: the ids in the collections."""
    folder = tmp_path_factory.mktemp("imports")
    versions = [*PROFILES, *REMEMBERING]
    with ThreadPoolExecutor(len(versions)) as pool:
        yield {version: pool.submit(imported, milvus_server.uri, version, folder / version) for version in versions}


@pytest.mark.parametrize("version", [*PROFILES, *REMEMBERING])
def test_each_row_arrives_once_though_a_loader_died(imports, version):
    assert imports[version].result() == list(range(ROWS))


@pytest.mark.parametrize(
    ("version", "remembers"), [("2.6.23", False), ("2.6.24", True), ("3.0.1", False), ("3.0.2", True), ("3.1.0", True)]
)
def test_the_servers_that_know_a_repeated_request(version, remembers):
    server = SimpleNamespace(embedded=False, client=SimpleNamespace(get_server_version=lambda: f"v{version}"))
    assert ImportTasks(server, "words", "").repeatable == RepeatedImports.applies(parse(version)) == remembers
