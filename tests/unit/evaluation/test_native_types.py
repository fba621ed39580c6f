"""Milvus's own index types as `alula evaluate --compare` reads and sweeps them."""

from __future__ import annotations

import pytest

from alula.errors import UsageError
from alula.evaluation.native_types import NATIVE, parse_native
from alula.index_types import native_cost


def test_build_parameters():
    assert parse_native("hnsw:M=32:efConstruction=100") == ("HNSW", {"M": 32, "efConstruction": 100})
    words = {"sq_type": "SQ4U", "refine": True, "refine_type": "FP16"}
    assert parse_native("HNSW_SQ:sq_type=sq4u:refine=true:refine_type=FP16") == ("HNSW_SQ", words)


@pytest.mark.parametrize(
    "text", ["HNSW:M", "HNSW:M=x", "IVF_FLAT:nlist=0", "HNSW:M=00", "ANNOY", "", "HNSW:sq_type=SQ8"]
)
def test_wrong_types_and_numbers(text):
    with pytest.raises(UsageError):
        parse_native(text)


def test_wrong_words_are_refused_with_the_right_ones():
    with pytest.raises(UsageError, match="sq_type is one of SQ4U, SQ6, SQ8, BF16, FP16"):
        parse_native("HNSW_SQ:sq_type=SQ5")


@pytest.mark.parametrize("name", NATIVE)
def test_every_type_has_settings_for_any_limit_and_a_cost(name):
    built = NATIVE[name].build(100_000, 384)
    for limit in (1, 10, 300):
        settings = NATIVE[name].sweep(built, limit)
        assert len({tuple(one.items()) for one in settings}) == len(settings) > 0
        assert all(one.get("ef", limit) >= limit for one in settings)
    assert native_cost(name, 384, built, 100_000).memory_bytes > 0


def test_refining_is_swept_where_it_is_on():
    built = NATIVE["HNSW_SQ"].build(100_000, 384)
    assert not any("refine_k" in one for one in NATIVE["HNSW_SQ"].sweep(built, 10))
    assert {one["refine_k"] for one in NATIVE["HNSW_SQ"].sweep({**built, "refine": True}, 10)} == {1, 4}
    assert all("refine_k" in one for one in NATIVE["IVF_RABITQ"].sweep(NATIVE["IVF_RABITQ"].build(100_000, 384), 10))
