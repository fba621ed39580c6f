"""Every registered index type declares its probes, a third-party one too."""

from __future__ import annotations

import dataclasses

import pytest

from alula.errors import AlulaError
from alula.index_types import FieldSpec, NativeIndex, Probe, index_types, probes, registry
from alula.index_types.capabilities import STORAGE_PROBES, Capabilities, binary_probe, sparse_probe
from alula.index_types.flops_sparse import FlopsSparse

OWN = Probe(
    "float16",
    "FLOAT16 vectors",
    (FieldSpec("half", "FLOAT16_VECTOR", 8, {"dim": 4}),),
    NativeIndex("half", "FLAT", "COSINE"),
    "vectors take half the bytes",
    "no HALF",
)


class Half(FlopsSparse):
    """A stranger's index type."""

    name = "HALF"
    probes = (OWN, sparse_probe("HALF works", "no HALF"))


@pytest.fixture
def with_half(monkeypatch):
    types = {**index_types(), "HALF": Half()}
    monkeypatch.setattr(registry, "index_types", lambda: types)


def test_the_union_names_each_probe_once():
    names = [probe.name for probe in probes()]
    storage = ["array_field", "half_vectors", "several_vector_fields"]
    assert sorted(names) == ["BIN_FLAT", "BIN_IVF_FLAT", "HNSW", *storage, "sparse_index"]
    sparse = next(probe for probe in probes() if probe.name == "sparse_index")
    assert sparse.yes == "DRQ's layout adc works; FLOPS_SPARSE works"
    assert sparse.no == "no layout adc; no FLOPS_SPARSE"


@pytest.mark.usefixtures("with_half")
def test_a_third_party_type_has_its_own_need_probed():
    union = {probe.name: probe for probe in probes()}
    assert union["float16"] == OWN
    assert union["sparse_index"].no.endswith("; no HALF")


def test_two_probes_of_one_name_must_be_the_same():
    changed = dataclasses.replace(OWN, name="BIN_FLAT")
    with pytest.raises(AlulaError, match="different probes 'BIN_FLAT'"):
        binary_probe("BIN_FLAT", "", "").merged(changed)


def test_capabilities_by_name():
    server = Capabilities("Milvus 9", frozenset({"BIN_FLAT", "array_field", "float16"}), {"sparse_index": "why"})
    assert (server.sparse_index, server.several_vector_fields, server.array_field) == (False, False, True)
    assert server.binary_indexes == {"BIN_FLAT"}
    assert {probe.name for probe in STORAGE_PROBES} == {"several_vector_fields", "array_field", "half_vectors"}
