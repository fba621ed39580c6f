"""Declared functions through the gateway, in the real engines: a search finds what brute force finds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pymilvus import AnnSearchRequest, DataType, Function, FunctionType, MilvusClient, MilvusException, WeightedRanker

from alula import encoder_store
from alula.errors import UsageError
from alula.gateway import function_values
from tests.engines.gateway.running import RunningGateway
from tests.tiny_encoders import VOCABULARY, TinyText, random_vectors, write_drq, write_flops
from tools.servers import node
from tools.servers.lite import connected

NODE = Path(__file__).parents[2] / "sdk" / "node"
ROWS, LIMIT = 90, 20
WORDS = VOCABULARY[6:]
TYPES = {
    "text": (DataType.VARCHAR, {"max_length": 200}),
    "vector": (DataType.FLOAT_VECTOR, {"dim": 8}),
    "sparse": (DataType.SPARSE_FLOAT_VECTOR, {}),
    "binary": (DataType.BINARY_VECTOR, {"dim": 64}),
}
INDEXES = {
    "sparse": {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP"},
    "binary": {"index_type": "BIN_FLAT", "metric_type": "HAMMING"},
    "vector": {"index_type": "FLAT", "metric_type": "COSINE"},
}


class Served:
    """A gateway in front of an engine, with a client of each, and encoders."""

    def __init__(self, upstream: str, gateway: RunningGateway, folder) -> None:
        self.direct, self.client = MilvusClient(upstream), MilvusClient(gateway.uri)
        self.upstream, self.address = upstream, gateway.uri.removeprefix("http://")
        self.tiny = {
            ("text", "sparse"): write_flops(
                folder / "words.onnx", dim=128, max_nnz=8, backbone=TinyText(), metric="IP"
            ),
            ("text", "binary"): write_drq(folder / "bits.onnx", sign_bits=64, backbone=TinyText()),
            ("vector", "sparse"): write_flops(folder / "flops.onnx", dim=128, max_nnz=8),
            ("vector", "binary"): write_drq(folder / "drq.onnx", sign_bits=64),
        }
        with connected(upstream) as server:
            for encoder in self.tiny.values():
                encoder_store.push(server, encoder.path)

    def create(self, name, source, *targets, kind=FunctionType.MINHASH, encoder=None):
        """A collection with one function per target."""
        schema = self.client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        for field in (source, *targets):
            data_type, params = TYPES[field]
            schema.add_field(field, data_type, **params)
        for target in targets:
            params = {"provider": "alula", "encoder": encoder or self.tiny[source, target].path.stem}
            schema.add_function(Function(f"to_{target}", kind, source, target, params=params))
        index = self.client.prepare_index_params()
        for field in INDEXES.keys() & {source, *targets}:
            index.add_index(field, **INDEXES[field])
        self.client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")


@pytest.fixture(scope="module")
def on_lite(lite_server, tmp_path_factory):
    with RunningGateway(lite_server.uri) as gateway:
        yield Served(lite_server.uri, gateway, tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def on_standalone(milvus_server, tmp_path_factory):
    with RunningGateway(milvus_server.uri) as gateway:
        yield Served(milvus_server.uri, gateway, tmp_path_factory.mktemp("encoders"))


@pytest.fixture(params=["on_lite", "on_standalone"])
def served(starts_engine, request):
    """Each engine in turn."""
    return request.getfixturevalue(request.param)


def values(source, rows=ROWS, seed=0):
    if source == "vector":
        return random_vectors(rows, seed=seed)
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 5))) for _ in range(rows)]


def rows(source, given):
    return [{"id": i, source: value} for i, value in enumerate(given)]


def true_scores(encoder, source, target, given, queries):
    """By the encoder's formula: float64 (queries, rows)."""
    if source == "text":
        given, queries = encoder.backbone.embed(given), encoder.backbone.embed(queries, queries=True)
    if target == "sparse":
        return encoder.dense(queries) @ encoder.dense(given).T
    bits, asked = np.unpackbits(encoder.row_signs(given), axis=1), np.unpackbits(encoder.query_signs(queries), axis=1)
    return (asked[:, None, :] != bits[None, :, :]).sum(2).astype(float)


def check(hits, truth, target):
    """Hits have their true scores, and no row with a better one was left out."""
    for found, scores in zip(hits, truth, strict=True):
        ids = [hit["id"] for hit in found]
        np.testing.assert_allclose([hit["distance"] for hit in found], scores[ids], atol=1e-5)
        best = np.sort(scores[scores > 0])[::-1] if target == "sparse" else np.sort(scores)
        np.testing.assert_allclose([hit["distance"] for hit in found], best[:LIMIT], atol=1e-5)


CASES = [  # Milvus 2.3 has one vector field per collection, and no sparse ones
    ("on_standalone", "text", "binary"),
    ("on_lite", "text", "binary"),
    ("on_lite", "text", "sparse"),
    ("on_lite", "vector", "sparse"),
    ("on_lite", "vector", "binary"),
]


def test_an_alias_that_moves_while_rows_are_encoded(on_standalone, collection_name, tmp_path, monkeypatch):
    """Rows go where their encoder belongs, and a search ranks the collection whose encoder its queries have."""
    served, alias, names = on_standalone, f"{collection_name}_live", [collection_name, f"{collection_name}_new"]
    other = write_drq(tmp_path / f"{collection_name}.onnx", sign_bits=64, backbone=TinyText(), seed=1)
    with connected(served.upstream) as server:
        encoder_store.push(server, other.path)
    served.create(names[0], "text", "binary")
    served.create(names[1], "text", "binary", encoder=other.path.stem)
    served.direct.create_alias(names[0], alias)
    given = values("text")

    def moves_the_alias(name, collection):
        work = getattr(function_values, name)

        def then_move(*arguments):
            work(*arguments)
            served.direct.alter_alias(collection, alias)

        monkeypatch.setattr(function_values, name, then_move)

    moves_the_alias("fill", names[1])
    served.client.insert(alias, rows("text", given))
    monkeypatch.undo()
    for name, encoder, count in ((names[0], served.tiny["text", "binary"], ROWS), (names[1], other, 0)):
        found = served.direct.query(name, "id >= 0", ["binary"], consistency_level="Strong")
        assert len(found) == count
        for row in found:
            assert bytes(row["binary"][0]) == encoder.row_signs(encoder.backbone.embed([given[row["id"]]]))[0].tobytes()

    served.direct.alter_alias(names[0], alias)
    moves_the_alias("translate", names[1])
    hits = served.client.search(alias, given[:2], anns_field="binary", limit=LIMIT)
    monkeypatch.undo()
    check(hits, true_scores(served.tiny["text", "binary"], "text", "binary", given, given[:2]), "binary")
    served.direct.drop_alias(alias)


@pytest.mark.parametrize(("engine", "source", "target"), CASES)
def test_a_search_finds_what_brute_force_finds(request, collection_name, engine, source, target):
    served = request.getfixturevalue(engine)
    kind = FunctionType.BM25 if (source, target) == ("text", "sparse") else FunctionType.MINHASH
    served.create(collection_name, source, target, kind=kind)
    given, queries = values(source), values(source, 3, seed=1)
    served.client.insert(collection_name, rows(source, given))
    truth = true_scores(served.tiny[source, target], source, target, given, queries)
    hits = served.client.search(collection_name, list(queries), anns_field=target, limit=LIMIT)
    check(hits, truth, target)

    changed = values(source, 10, seed=2)
    served.client.upsert(collection_name, rows(source, changed))
    given[:10] = changed
    truth = true_scores(served.tiny[source, target], source, target, given, queries)
    if source == "text":  # the only vector field need not be named
        check(served.client.search(collection_name, list(queries), limit=LIMIT), truth, target)
    found = served.client.search(collection_name, list(queries[:1]), anns_field=target, limit=5, filter="id < 10")
    assert all(hit["id"] < 10 for hit in found[0])
    served.client.drop_collection(collection_name)


def test_clients_see_the_function_and_milvus_does_not(served, collection_name):
    served.create(collection_name, "text", "binary")
    seen = served.client.describe_collection(collection_name)
    assert [field["name"] for field in seen["fields"] if field.get("is_function_output")] == ["binary"]
    assert [field["description"] for field in seen["fields"]] == ["", "", ""]
    assert [function["name"] for function in seen["functions"]] == ["to_binary"]
    held = served.direct.describe_collection(collection_name)
    assert not held["functions"]
    assert held["fields"][2]["description"].startswith("[alula ")
    with pytest.raises(MilvusException, match=r"is_function_output|leave it out|function output|unexpected"):
        served.client.insert(collection_name, [{"id": 1, "text": "cat", "binary": bytes(8)}])
    served.client.drop_collection(collection_name)


def test_what_lies_in_milvus_is_the_encoders_output(served, collection_name):
    served.create(collection_name, "text", "binary")
    given = values("text", 20)
    served.client.insert(collection_name, rows("text", given))
    held = served.direct.query(collection_name, filter="id >= 0", output_fields=["binary"], consistency_level="Strong")
    encoder = served.tiny["text", "binary"]
    expected = encoder.row_signs(encoder.backbone.embed(given))
    assert {row["id"]: _bytes(row["binary"]) for row in held} == {i: bits.tobytes() for i, bits in enumerate(expected)}
    served.client.drop_collection(collection_name)


def _bytes(value):
    return value if isinstance(value, bytes) else b"".join(value)


def test_a_sparse_output_is_refused_where_it_cannot_be_searched(on_standalone, collection_name):
    with pytest.raises(MilvusException, match="cannot index this type"):
        on_standalone.create(collection_name, "text", "sparse")
    assert not on_standalone.direct.has_collection(collection_name)


def test_refusals_are_sentences(served, collection_name):
    with pytest.raises(MilvusException, match="takes vectors"):
        served.create(collection_name, "text", "binary", encoder="drq")
    with pytest.raises(MilvusException, match="unheard"):
        served.create(collection_name, "text", "binary", encoder="unheard")
    served.create(collection_name, "text", "binary")
    with pytest.raises(MilvusException, match="dimension 3"):
        served.client.search(collection_name, [[0.1, 0.2, 0.3]], anns_field="binary", limit=3)
    served.client.drop_collection(collection_name)


def test_two_outputs_of_one_text_and_a_hybrid_search_over_them(on_lite, collection_name):
    served = on_lite
    served.create(collection_name, "text", "sparse", "binary")
    given, query = values("text"), "the red bird"
    served.client.insert(collection_name, rows("text", given))
    truth = {
        target: true_scores(served.tiny["text", target], "text", target, given, [query])[0]
        for target in ("sparse", "binary")
    }
    searches = [AnnSearchRequest([query], target, {}, ROWS) for target in truth]
    (hits,) = served.client.hybrid_search(collection_name, searches, WeightedRanker(0.5, 0.5), LIMIT)
    squashed = np.where(truth["sparse"] > 0, 0.5 + np.arctan(truth["sparse"]) / np.pi, 0)
    fused = 0.5 * squashed + 0.5 * (1 - 2 * np.arctan(truth["binary"]) / np.pi)
    np.testing.assert_allclose([hit["distance"] for hit in hits], np.sort(fused)[::-1][:LIMIT], atol=1e-5)
    served.client.drop_collection(collection_name)


@pytest.fixture(scope="module")
def node_of_tests():
    return node.install(NODE)


@pytest.mark.parametrize(("source", "target"), [("text", "sparse"), ("vector", "binary")])
def test_functions_with_the_node_sdk(on_lite, node_of_tests, collection_name, source, target):
    given, queries = values(source, 30), values(source, 3, seed=1)
    encoder = on_lite.tiny[source, target]
    plain = (lambda vector: vector.tolist()) if source == "vector" else str
    function = {"name": "f", "type": "BM25" if target == "sparse" else int(FunctionType.MINHASH)}
    function |= {"input_field_names": [source], "output_field_names": [target]}
    case = {
        "collection": collection_name,
        "source": source,
        "target": target,
        "fields": [
            {"name": "id", "data_type": int(DataType.INT64), "is_primary_key": True},
            *({"name": name, "data_type": int(TYPES[name][0]), **TYPES[name][1]} for name in (source, target)),
        ],
        "functions": [{**function, "params": {"provider": "alula", "encoder": encoder.path.stem}}],
        "index": [{"field_name": name, **INDEXES[name]} for name in INDEXES.keys() & {source, target}],
        "rows": [{"id": i, source: plain(value)} for i, value in enumerate(given)],
        "queries": [plain(query) for query in queries],
        "limit": LIMIT,
    }
    command = [node_of_tests.binary, NODE / "functions.mjs", node_of_tests.modules, on_lite.address]
    done = subprocess.run(command, input=json.dumps(case), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["outputs"] == [target]
    assert seen["reads"]
    truth = true_scores(encoder, source, target, given, queries)
    check([[{"id": id_, "distance": score} for id_, score in hits] for hits in seen["found"]], truth, target)
    assert seen["fused"][0] == seen["found"][0][0][0]
    on_lite.client.drop_collection(collection_name)


def test_an_encoder_that_a_function_uses_is_not_removed(on_lite, collection_name):
    on_lite.create(collection_name, "text", "sparse")
    for address in (on_lite.upstream, f"http://{on_lite.address}"):
        with connected(address) as server, pytest.raises(UsageError, match=collection_name):
            encoder_store.remove(server, "words")
    with connected(on_lite.upstream) as server:
        on_lite.client.drop_collection(collection_name)
        used = encoder_store.find(encoder_store.querying(server), "words").sha256
        assert not encoder_store.made_with(server, used)
