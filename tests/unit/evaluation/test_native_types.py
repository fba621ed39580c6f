"""Milvus's own index types as `alula evaluate --compare` reads and sweeps them."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from alula.errors import UsageError
from alula.evaluation.native_types import FACTORY, FAISS, NATIVE, parse_native, parse_natives
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


def test_a_factory_string_has_commas_and_ends_a_list():
    string = "OPQ16_64,IVF1024(IVF32,Flat),PQ16x4fs,Refine(SQ8)"
    assert parse_natives(f"HNSW:M=32,IVF_SQ8,FAISS:{string}") == [
        ("HNSW", {"M": 32}),
        ("IVF_SQ8", {}),
        ("FAISS", {FACTORY: string}),
    ]
    assert parse_natives("faiss:HNSW32,Flat:efConstruction=80") == [
        ("FAISS", {FACTORY: "HNSW32,Flat", "efConstruction": 80})
    ]
    for text in ("", "HNSW,", "HNSW,,FLAT", ",FAISS:Flat"):
        with pytest.raises(UsageError, match="'' is not an index type"):
            parse_natives(text)


@pytest.mark.parametrize("text", ["FAISS", "FAISS:", "FAISS::efConstruction=80"])
def test_faiss_needs_a_factory_string(text):
    with pytest.raises(UsageError, match="FAISS needs a factory string"):
        parse_native(text)


@pytest.mark.parametrize("name", sorted(set(NATIVE) - {FAISS}))
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


@pytest.mark.parametrize(
    ("string", "names"),
    [
        ("IVF1024,PQ48x4fs", {"nprobe"}),
        ("IVF1024_HNSW32,PQ48x4fs,RFlat", {"nprobe", "k_factor"}),
        ("OPQ16_64,IMI2x5,SQ8,Refine(SQfp16)", {"nprobe", "k_factor"}),
        ("IVF32(IVF4,PQ4x4fs,RFlat),Flat", {"nprobe"}),
        ("PCAR64,HNSW16,SQ8", {"efSearch"}),
        ("HNSW16_PQ48,RFlat", {"efSearch", "k_factor"}),
        ("Flat", set()),
        ("PQ48", set()),
    ],
)
def test_a_factory_string_sweeps_what_its_index_takes(string, names):
    settings = NATIVE[FAISS].sweep({FACTORY: string}, 20)
    assert {name for one in settings for name in one} == names
    assert all(one.get("efSearch", 20) >= 20 for one in settings)
    index = faiss.index_factory(384, string)
    for one in settings:
        for name, value in one.items():  # faiss raises where the index has no such parameter
            faiss.ParameterSpace().set_index_parameter(index, "k_factor_rf" if name == "k_factor" else name, value)


@pytest.mark.parametrize(
    "string",
    [
        "Flat",
        "IVF8,Flat",
        "IVF8_HNSW4,SQ8",
        "RR32,IVF8,PQ8x4fs,RFlat",
        "PCA16,IVF8,SQ4,Refine(SQfp16)",
        "IVF8,RaBitQ",
        "IMI2x2,PQ8x4",
        "HNSW16,Flat",
        "PCAR16,HNSW16_SQ8",
    ],
)
def test_bytes_of_a_factory_string_are_those_of_the_file_that_faiss_writes(string):
    dim, rows = 64, 2048
    index = faiss.index_factory(dim, string)
    vectors = np.random.default_rng(0).standard_normal((2 * rows, dim), dtype=np.float32)
    index.train(vectors)
    index.add(vectors[:rows])
    before = len(faiss.serialize_index(index))
    index.add(vectors[rows:])
    memory = native_cost(FAISS, dim, {FACTORY: string}).memory
    grown = (len(faiss.serialize_index(index)) - before) / rows
    assert sum(memory.values()) - memory.get("rounding", 0) == pytest.approx(grown, rel=0.03)


@pytest.mark.parametrize("string", ["OPQ8_32,SQ8", "PCAW16,Flat", "L2norm,SQ6", "SQbf16", "PQ8x4", "PQ16", "RaBitQ"])
def test_bytes_of_a_code_are_those_of_faiss(string):
    index = faiss.index_factory(64, string)
    assert native_cost(FAISS, 64, {FACTORY: string}).memory == {"codes": index.sa_code_size()}


def test_bytes_that_are_not_known_are_not_counted():
    cost = native_cost(FAISS, 64, {FACTORY: "IVF8,LSQ8x8"}, rows=100)
    assert cost.memory_bytes == 0
    assert "IVF8,LSQ8x8 are not known" in cost.note
