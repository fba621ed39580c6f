"""Index types are found through entry points; one that is broken gets a sentence that names its package."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from alula.errors import AlulaError, UsageError
from alula.index_types import IndexType, index_type, index_types, registry
from alula.index_types.drq import Drq
from alula.index_types.flops_sparse import FlopsSparse

GROUP = "alula.index_types"
HERE = "tests.unit.index_types.test_registry"


class Plain(IndexType):
    name = "PLAIN"
    encoder_kind = "drq"
    summary = "A stranger's."

    def choose(self, capabilities, options):
        return {}

    def lowering(self, field, encoder, settings):
        raise NotImplementedError


class Unfinished(IndexType):
    name = "UNFINISHED"
    encoder_kind = "drq"
    summary = "A stranger's, with methods missing."


class Nameless(IndexType):
    choose = Plain.choose
    lowering = Plain.lowering


class NotAnIndexType:
    name = "OTHER"


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these entry points, ``NAME: module:object``, are installed."""

    def install(*points):
        found = [EntryPoint(name, value, GROUP) for name, value in points]
        monkeypatch.setattr(registry, "entry_points", lambda group: found if group == GROUP else [])

    index_types.cache_clear()
    yield install
    index_types.cache_clear()


def test_the_built_ins_are_registered_like_a_strangers():
    types = index_types()
    assert isinstance(types["DRQ"], Drq)
    assert isinstance(types["FLOPS_SPARSE"], FlopsSparse)
    assert all(kind.name == name and kind.summary and kind.encoder_kind for name, kind in types.items())


def test_a_type_is_found_by_name():
    assert index_type("DRQ") is index_types()["DRQ"]
    assert index_type("flops_sparse") is index_types()["FLOPS_SPARSE"]


@pytest.mark.parametrize("name", ["drk", "HNSW", ""])
def test_an_unknown_name_lists_those_there_are(name):
    with pytest.raises(UsageError, match=rf"There is no index type '{name}'; there are: .*DRQ.*FLOPS_SPARSE"):
        index_type(name)


def test_a_strangers_type_is_listed(installed):
    installed(("PLAIN", f"{HERE}:Plain"))
    assert list(index_types()) == ["PLAIN"]
    assert index_type("PLAIN").summary == "A stranger's."


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("GONE", "no_such_module_anywhere:Type", "GONE of an unknown package cannot be imported: .*no_such_module"),
        ("GONE", f"{HERE}:NoSuchClass", "GONE of an unknown package cannot be imported"),
        ("OTHER", f"{HERE}:NotAnIndexType", "OTHER of an unknown package is not an IndexType of that name"),
        ("HERE", f"{HERE}:GROUP", "HERE of an unknown package is not an IndexType"),
        ("SIMPLE", f"{HERE}:Plain", "SIMPLE of an unknown package is not an IndexType of that name"),
        ("UNFINISHED", f"{HERE}:Unfinished", "UNFINISHED of an unknown package"),
        ("NAMELESS", f"{HERE}:Nameless", "NAMELESS of an unknown package is not an IndexType of that name"),
    ],
    ids=["no module", "no class", "another class", "no class at all", "another name", "abstract", "nameless"],
)
def test_a_broken_entry_point(installed, name, target, words):
    installed((name, target))
    with pytest.raises(AlulaError, match=words):
        index_types()


def test_a_module_that_fails_in_its_own_way(installed, tmp_path, monkeypatch):
    (tmp_path / "failing_index_type.py").write_text("raise RuntimeError('its disk is full')")
    monkeypatch.syspath_prepend(tmp_path)
    installed(("FAILS", "failing_index_type:Type"))
    with pytest.raises(AlulaError, match="FAILS of an unknown package cannot be imported: its disk is full"):
        index_types()


def test_two_packages_with_one_name(installed):
    installed(("PLAIN", f"{HERE}:Plain"), ("PLAIN", f"{HERE}:Plain"))
    with pytest.raises(AlulaError, match="Two installed packages register the index type PLAIN; uninstall one"):
        index_types()
