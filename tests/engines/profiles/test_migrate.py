"""A collection is migrated behind an alias, which the new collection then serves by each version's rules."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import alula
from alula.errors import UsageError
from alula.ingest.journal import Journal
from alula.migration.migrate import Migration, roll_back
from alula.migration.source_collection import read_source_collection
from alula.milvus import alias_target, aliases_of
from tests.engines.profiles.conftest import FLUSH_SECONDS
from tests.plain_collections import check_migrated, create_plain, plain_rows
from tools.servers.versions.limits import FlushRate
from tools.servers.versions.proxy import PROFILES, VersionProxy
from tools.servers.versions.schemas import StaleAliases

ROWS = 120


def migrate(upstream, profile, drq, folder):
    """Migrate a collection with its alias, look at both, and move the alias back."""
    old = f"plain_{profile.replace('.', '_')}"
    new, live = f"{old}_v2", f"{old}_live"
    with (
        VersionProxy(upstream.uri, profile) as proxy,
        alula.connect(proxy.uri, database=upstream.login["database"]) as server,
    ):
        proxy.rule(FlushRate).seconds = FLUSH_SECONDS
        create_plain(server, old, plain_rows(range(ROWS)))
        server.client.create_alias(old, live)
        source = read_source_collection(server, old)

        def migration(*, resume):
            return Migration(source, new, encoder=drq.path, index_type="DRQ", alias=live, resume=resume)

        migration(resume=False).run(journal=Journal(folder / profile), queries=0)
        assert check_migrated(server, old, new, drq) == ROWS
        assert alias_target(server, live) == new
        assert (aliases_of(server, old), aliases_of(server, new)) == ([], [live])
        if proxy.has(StaleAliases):
            described = [server.client.describe_collection(name)["aliases"] for name in (old, new)]
            assert described != [[], [live]]
        with pytest.raises(UsageError, match=f"serves already, by the alias {live}"):
            migration(resume=True)
        roll_back(server, old, new, live)
        migration(resume=True)  # an alias that is gone refuses nothing
        server.client.drop_alias(live)


@pytest.fixture(scope="module")
def migrations(database, drq, tmp_path_factory):
    """All profiles at once, as each waits for the engine most of the time."""
    folder = tmp_path_factory.mktemp("journals")
    with ThreadPoolExecutor(len(PROFILES)) as pool:
        yield {profile: pool.submit(migrate, database, profile, drq, folder) for profile in PROFILES}


def test_an_alias_moves_and_the_copy_is_not_written_over(migrations, profile):
    migrations[profile].result()
