"""The capabilities of the upstream, asked for by clients with and without the rights."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from alula.gateway import capability_cache
from alula.gateway.capability_cache import CapabilityCache
from alula.index_types import Capabilities
from alula.index_types.capabilities import algorithm_probe
from alula.milvus import MissingRightsError


def client(login):
    return SimpleNamespace(metadata=(("authorization", login),), database="")


def test_a_login_without_rights_probes_once(monkeypatch):
    """A probe may leave a collection behind that the login cannot drop."""
    probed, found = [], Capabilities("Milvus 2.5", frozenset({"sparse_index"}))

    def probe(self, caller, asked):
        login = dict(caller.metadata)["authorization"]
        probed.append(login)
        if login == "guest":
            raise MissingRightsError("It could not be dropped.")
        return found

    monkeypatch.setattr(CapabilityCache, "_probed", probe)
    cache = CapabilityCache(None)
    for _ in range(3):
        with pytest.raises(Exception, match="could not be dropped"):
            cache.get(client("guest"))
    assert probed == ["guest"]
    assert cache.get(client("root")) == cache.get(client("guest")) == found
    assert probed == ["guest", "root"]


def test_it_may_try_again_later(monkeypatch):
    monkeypatch.setattr(capability_cache, "REFUSED_SECONDS", 0.0)
    probed = []

    def probe(self, caller, asked):
        probed.append(caller)
        raise MissingRightsError("no")

    monkeypatch.setattr(CapabilityCache, "_probed", probe)
    cache = CapabilityCache(None)
    for _ in range(2):
        with pytest.raises(MissingRightsError):
            cache.get(client("guest"))
    assert len(probed) == 2


def test_further_questions_are_asked_once(monkeypatch):
    sindi, calls = algorithm_probe("SINDI"), []

    def probe(self, caller, asked):
        calls.append(tuple(each.name for each in asked))
        return Capabilities("Milvus 3", frozenset(), {each.name: "no" for each in asked})

    monkeypatch.setattr(CapabilityCache, "_probed", probe)
    cache = CapabilityCache(None)
    for asked in ((), (), (sindi,), (sindi,), ()):
        found = cache.get(client("root"), asked)
    assert calls == [(), ("SINDI",)]
    assert found.reasons == {"SINDI": "no"}


def test_what_is_known_is_answered_while_another_question_is_asked(monkeypatch):
    """An index of the option SINDI is built for its question, which may take a minute."""
    asking, goes_on = threading.Event(), threading.Event()

    def probe(self, caller, asked):
        if asked:
            asking.set()
            assert goes_on.wait(30)
        return Capabilities("Milvus 3", frozenset({each.name for each in asked}))

    monkeypatch.setattr(CapabilityCache, "_probed", probe)
    cache, sindi = CapabilityCache(None), algorithm_probe("SINDI")
    cache.get(client("root"))
    with ThreadPoolExecutor(1) as other:
        slow = other.submit(cache.get, client("root"), (sindi,))
        assert asking.wait(30)
        known = cache.get(client("root"))
        goes_on.set()
        assert not known.knows(sindi)
        assert slow.result().knows(sindi)
