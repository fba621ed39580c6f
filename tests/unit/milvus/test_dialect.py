"""The dialect of a server follows from its address."""

from __future__ import annotations

from typing import cast

import pytest
from pymilvus import MilvusClient

from alula.errors import ServerError, UsageError
from alula.milvus import Server, delete_rows
from alula.milvus.dialect import LITE, MILVUS

CLIENT = cast(MilvusClient, None)


@pytest.mark.parametrize(("uri", "dialect"), [("rows.db", LITE), ("/a/b.db", LITE), ("http://host:19530", MILVUS)])
def test_by_address(uri, dialect):
    server = Server(uri, CLIENT)
    assert server.dialect is dialect
    assert server.embedded == (dialect is LITE)


def test_keys_with_quotes():
    assert [LITE.can_delete(key) for key in (1, "a", "o'clock")] == [True, True, False]
    assert MILVUS.can_delete("o'clock")
    with pytest.raises(ServerError, match="Milvus Lite can neither delete nor replace the row with the id"):
        delete_rows(Server("rows.db", CLIENT), "name", "id", ["a", "o'clock"])


def test_partitions_and_aliases_are_refused_by_name():
    with pytest.raises(UsageError, match="Milvus Lite has no partitions; load without"):
        Server("rows.db", CLIENT).check_partitions("load without")
    with pytest.raises(UsageError, match="Milvus Lite has no aliases"):
        Server("rows.db", CLIENT).check_aliases()
    Server("http://host", CLIENT).check_partitions("load without")
    Server("http://host", CLIENT).check_aliases()
