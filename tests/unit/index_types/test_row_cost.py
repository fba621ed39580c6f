"""Bytes of a row: every sum is written out by hand from Milvus's structures."""

import dataclasses

import pytest

from alula.encoders import load_encoder
from alula.errors import UnsupportedError
from alula.index_types import (
    Capabilities,
    FieldSpec,
    VectorField,
    encoder_cost,
    fields_cost,
    key_cost,
    lowering_cost,
    native_cost,
    probes,
)
from alula.index_types.drq.index_type import Drq
from tests.tiny_encoders import write_drq, write_flops

SIGNS = FieldSpec("v__drq_sign", "BINARY_VECTOR", 32, {"dim": 256})
COLUMNS = tuple(FieldSpec(f"v__drq_{name}", "INT64", 8) for name in ("code_0", "code_1", "norm_0", "norm_1"))


def field(storage, dim=384):
    return VectorField("v", dim, "COSINE", storage)


def test_flat_is_its_floats():
    assert native_cost("FLAT", 384, {}).memory == {"vectors": 1536}


@pytest.mark.parametrize(
    ("links", "graph"),
    [
        # lowest level: 2 M neighbours of 4 bytes, their number, a label of 8; a pointer of 8, a level of 4, a lock of
        # 40; above: M neighbours and their number on 1 / (M - 1) levels
        (16, 32 * 4 + 4 + 8 + 8 + 4 + 40 + 17 * 4 / 15),
        (2, 4 * 4 + 4 + 8 + 8 + 4 + 40 + 3 * 4 / 1),
    ],
)
def test_hnsw_is_vectors_and_a_graph(links, graph):
    cost = native_cost("HNSW", 768, {"M": links})
    assert cost.memory["vectors"] == 3072
    assert cost.memory["graph"] == pytest.approx(graph)
    assert cost.disk == {}


@pytest.mark.parametrize(
    ("index_type", "params", "code", "tables"),
    [
        ("IVF_FLAT", {"nlist": 100}, 4 * 384, 100),
        ("IVF_SQ8", {"nlist": 100}, 384, 100),
        ("IVF_PQ", {"nlist": 100, "m": 48, "nbits": 8}, 48, 100 + 256),
        ("IVF_PQ", {"nlist": 100, "m": 48, "nbits": 4}, 24, 100 + 16),
        ("SCANN", {"nlist": 100}, 4 * 384 + 192 / 2, 100),
    ],
)
def test_lists_have_codes_ids_and_shared_tables(index_type, params, code, tables):
    memory = native_cost(index_type, 384, params, rows=1000).memory
    assert memory["vectors"] == code
    assert memory["ids"] == 8
    assert memory["centroids"] == pytest.approx(tables * 384 * 4 / 1000)
    assert sum(memory.values()) == native_cost(index_type, 384, params, rows=1000).memory_bytes
    assert memory["rounding"] == pytest.approx(0.09 * (code + 8)), "a list's memory is rounded up"
    assert "centroids" not in native_cost(index_type, 384, params).memory, "no rows, no share of the tables"


@pytest.mark.parametrize(
    ("index_type", "params", "code"),
    [
        ("HNSW_SQ", {"sq_type": "SQ4U"}, 384 / 2),
        ("HNSW_SQ", {"sq_type": "SQ8", "refine": True, "refine_type": "FP16"}, 384 + 2 * 384),
        ("HNSW_PQ", {"m": 96, "nbits": 8, "refine": True, "refine_type": "SQ8"}, 96 + 384),
        ("HNSW_PRQ", {"m": 48, "nrq": 2, "nbits": 8, "refine": False, "refine_type": "SQ8"}, 96),
    ],
)
def test_graphs_over_codes(index_type, params, code):
    cost = native_cost(index_type, 384, {"M": 16, **params})
    assert cost.memory_bytes - code == pytest.approx(cost.memory["graph"])
    assert 4 * 32 < cost.memory["graph"] < 4 * 40
    assert "not held against" in cost.note


def test_rabitq_has_a_bit_a_dimension_two_factors_and_its_refining_codes():
    params = {"nlist": 100, "refine": True, "refine_type": "SQ8"}
    memory = native_cost("IVF_RABITQ", 384, params).memory
    assert memory["vectors"] == 384 / 8 + 8
    assert memory["refining codes"] == 384
    assert "refining codes" not in native_cost("IVF_RABITQ", 384, {"nlist": 100}).memory


def test_diskann_reads_vectors_and_graph_from_disk():
    cost = native_cost("DISKANN", 128, {})
    assert cost.memory_bytes == 4 * 128 / 8
    assert cost.disk_bytes == 4 * 128 + 57 * 4


def test_other_index_types_have_no_formula():
    with pytest.raises(KeyError):
        native_cost("GPU_CAGRA", 128, {})


def test_a_key_has_a_column_an_entry_and_a_timestamp():
    assert key_cost("INT64").memory_bytes == 8 + round(16 / 0.6931) + 8
    short, long = key_cost("VARCHAR", 10).memory_bytes, key_cost("VARCHAR", 40).memory_bytes
    # 30 more bytes in the column, and a string of over 15 bytes lies outside of the entry with its final zero
    assert long - short == 30 + 41


def test_columns_of_one_structure_are_one_part():
    cost = fields_cost(field("dropped"), (SIGNS, *COLUMNS), "BIN_FLAT", maps=True)
    assert cost.memory == {"drq sign": 32, "drq code": 16, "drq norm": 16}
    assert cost.disk == {}
    assert fields_cost(field("dropped"), (SIGNS,), "BIN_FLAT", maps=True).memory == {"drq sign": 32}
    assert fields_cost(field("dropped"), (SIGNS,), "BIN_IVF_FLAT", maps=True).memory == {"drq sign": 32, "ids": 8}


def test_kept_vectors_lie_on_disk_where_the_server_maps_them():
    mapped = fields_cost(field("field"), (SIGNS,), "BIN_FLAT", maps=True)
    assert (mapped.memory_bytes, mapped.disk_bytes) == (32, 1536)
    unmapped = fields_cost(field("field"), (SIGNS,), "BIN_FLAT", maps=False)
    assert (unmapped.memory_bytes, unmapped.disk_bytes) == (32 + 1536, 0)
    assert "memory" in unmapped.note


@pytest.mark.parametrize("maps", [True, False])
def test_an_array_column_lies_in_memory_with_more_than_its_floats(maps):
    cost = fields_cost(field("column"), (SIGNS,), "BIN_FLAT", maps=maps)
    assert 32 + 1536 < cost.memory_bytes < 32 + 1536 + 200
    assert cost.disk_bytes == 0
    longer = fields_cost(field("column", 768), (SIGNS,), "BIN_FLAT", maps=maps)
    assert longer.memory_bytes - cost.memory_bytes == 4 * 384, "what surrounds the floats does not grow with them"


def test_the_cost_of_a_lowering_is_that_of_its_fields(tmp_path):
    encoder = load_encoder(write_drq(tmp_path / "drq.onnx", input_dim=8, levels=4, sign_bits=32).path)
    vector = VectorField("v", 8, "COSINE", "field")
    lowering = Drq().lowering(vector, encoder, {"layout": "hamming", "binary_index": "BIN_FLAT"})
    cost = lowering_cost(lowering, maps=True)
    assert cost.memory_bytes == sum(spec.bytes_per_row for spec in lowering.fields)
    assert cost.disk == {"kept vectors": 32}
    assert list(dataclasses.asdict(cost)) == ["memory", "disk", "note"]


def test_the_cost_of_an_encoder_is_that_of_its_index_type_there(tmp_path):
    everything = Capabilities("new", frozenset(probe.name for probe in probes()))
    old = Capabilities("old", frozenset({"BIN_FLAT", "array_field"}))
    drq = load_encoder(write_drq(tmp_path / "drq.onnx", input_dim=384, levels=16, sign_bits=256).path)
    signs = encoder_cost(drq, everything, keep_vectors=True, maps=True)
    assert signs.memory["drq sign"] == 256 / 8
    assert signs.disk_bytes == 4 * 384
    assert encoder_cost(drq, old, keep_vectors=True, maps=True).memory["kept vectors"] > 4 * 384
    assert encoder_cost(drq, old, keep_vectors=False, maps=True).memory == signs.memory
    flops = load_encoder(write_flops(tmp_path / "flops.onnx", dim=64, max_nnz=5).path)
    assert encoder_cost(flops, everything, keep_vectors=False, maps=True).memory_bytes == 5 * (4 + 4)
    with pytest.raises(UnsupportedError, match="sparse"):
        encoder_cost(flops, old, keep_vectors=False, maps=True)
