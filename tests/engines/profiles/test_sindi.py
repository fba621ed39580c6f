"""SINDI, which Milvus 3.0 accepts always, is taken where an index for it was built."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

import alula
import alula.milvus.capabilities
from alula.catalog.create import design
from alula.errors import UnsupportedError
from tests.small_collections import DIM
from tests.tiny_encoders import write_flops
from tools.servers.lite import connected
from tools.servers.versions.indexes import Sindi

WANTED = {"inverted_index_algo": "SINDI"}


@pytest.fixture(scope="module")
def flops(tmp_path_factory):
    return write_flops(tmp_path_factory.mktemp("encoders") / "flops.onnx", input_dim=DIM)


@pytest.fixture
def created(on_lite, flops):
    """Creates a collection over a connection of its own, and drops it."""

    @contextmanager
    def create(name, options):
        with connected(on_lite.uri) as at:
            made = alula.Collection.create(at, name, encoder=flops.path, index_type="FLOPS_SPARSE", options=options)
            yield made
            made.drop()

    return create


@pytest.fixture
def sindi(on_lite):
    if not on_lite.has(Sindi):
        pytest.skip("this version has no SINDI")
    rule = on_lite.rule(Sindi)
    before = rule.index_version
    yield rule
    rule.index_version = before


def test_an_index_that_is_accepted_and_not_built_is_refused_before_anything_is_created(
    sindi, created, lite, collection_name
):
    sindi.index_version, before = 8, lite.client.list_collections()
    reason = r"SINDI \(Milvus could not build the index: SINDI is not supported by this index version\); leave "
    with pytest.raises(UnsupportedError, match=reason), created(collection_name, WANTED):
        pass
    assert lite.client.list_collections() == before
    with created(collection_name, {}) as made:
        assert made.lowering.index.params == {"inverted_index_algo": "TAAT_NAIVE"}


def test_an_index_that_was_built_is_taken_and_built_once(sindi, on_lite, created, flops, lite, collection_name):
    before, written = lite.client.list_collections(), len(on_lite.requests("Insert"))
    with created(collection_name, WANTED) as made:
        assert made.lowering.index.params == WANTED
        given = {"encoder": flops.path, "index_type": "FLOPS_SPARSE", "options": WANTED}
        again = design(made.spec.server, f"{collection_name}_2", **given)
        assert again.lowering.settings["inverted_index_algo"] == "SINDI"
    assert lite.client.list_collections() == before
    assert len(on_lite.requests("Insert")) == written + 1
    with created(collection_name, {}):
        assert len(on_lite.requests("Insert")) == written + 1, "nothing is built without a need"


def test_an_index_that_is_not_built_in_time_is_refused(on_lite, created, collection_name, monkeypatch):
    if on_lite.has(Sindi):
        pytest.skip("the engine alone counts no indexed rows")
    monkeypatch.setattr(alula.milvus.capabilities, "_BUILD_SECONDS", 0.5)
    late = r"not built the index in 0\.5 seconds, and 1,200 rows are not indexed"
    with pytest.raises(UnsupportedError, match=late), created(collection_name, WANTED):
        pass
