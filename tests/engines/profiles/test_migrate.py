"""A collection is migrated behind an alias, which the new collection then serves by each version's rules."""

from __future__ import annotations

import pytest

from alula.errors import UsageError
from alula.ingest.journal import Journal
from alula.migration.migrate import Migration, roll_back
from alula.migration.source_collection import read_source_collection
from alula.milvus import alias_target, aliases_of
from tests.plain_collections import check_migrated, create_plain, plain_rows
from tools.servers.versions.schemas import StaleAliases

ROWS = 120


@pytest.fixture
def names(standalone, collection_name):
    """Names of an old and a new collection and an alias, dropped at the end."""
    old, new, live = collection_name, f"{collection_name}_v2", f"{collection_name}_live"
    yield old, new, live
    standalone.client.drop_alias(live)
    for name in (old, new):
        standalone.client.drop_collection(name)


def test_an_alias_moves_and_the_copy_is_not_written_over(standalone, on_standalone, drq, names, tmp_path):
    old, new, live = names
    create_plain(standalone, old, plain_rows(range(ROWS)))
    standalone.client.create_alias(old, live)
    source = read_source_collection(standalone, old)

    def migration(*, resume):
        return Migration(source, new, encoder=drq.path, index_type="DRQ", alias=live, resume=resume)

    migration(resume=False).run(journal=Journal(tmp_path / "journal"), queries=0)
    assert check_migrated(standalone, old, new, drq) == ROWS
    assert alias_target(standalone, live) == new
    assert (aliases_of(standalone, old), aliases_of(standalone, new)) == ([], [live])
    if on_standalone.has(StaleAliases):
        described = [standalone.client.describe_collection(name)["aliases"] for name in (old, new)]
        assert described != [[], [live]]
    with pytest.raises(UsageError, match=f"serves already, by the alias {live}"):
        migration(resume=True)
    roll_back(standalone, old, new, live)
    migration(resume=True)  # an alias that is gone refuses nothing
