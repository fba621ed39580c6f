"""The fusion of hybrid searches: by the formulas, and against the real engine's own hybrid search."""

import json
import math
from collections import defaultdict

import numpy as np
import pytest
from pymilvus import AnnSearchRequest, DataType, Function, FunctionType, RRFRanker, WeightedRanker
from pymilvus.client.prepare import Prepare
from pymilvus.grpc_gen import common_pb2, milvus_pb2

import alula
from alula.errors import UsageError
from alula.gateway import fusion
from alula.search import RankedIds
from alula.search.fusion import Fusion

METRICS = {"cosine": "COSINE", "ip": "IP", "l2": "L2", "sparse": "IP", "binary": "HAMMING"}
ROWS, DIM, TAKEN = 120, 8, 25
SQUASHED = {
    "COSINE": lambda s: (1 + s) / 2,
    "IP": lambda s: 0.5 + math.atan(s) / math.pi,
    "BM25": lambda s: 2 * math.atan(s) / math.pi,
    "L2": lambda s: 1 - 2 * math.atan(s) / math.pi,
}


def ranking(ids, scores):
    return RankedIds(ids, scores, exact=True)


def request(rerank, limit=10, searches=2, **arguments):
    """As pymilvus makes it."""
    return Prepare.hybrid_search_request_with_ranker(
        "c", [milvus_pb2.SearchRequest() for _ in range(searches)], rerank, limit, **arguments
    )


def with_params(searches=2, **params):
    """As other SDKs make it: texts of their own."""
    pairs = [common_pb2.KeyValuePair(key=key, value=value) for key, value in params.items()]
    return milvus_pb2.HybridSearchRequest(requests=[milvus_pb2.SearchRequest()] * searches, rank_params=pairs)


def rerank_function(**params):
    return Function("rerank", FunctionType.RERANK, [], params=params)


def test_reads_what_pymilvus_sends():
    assert fusion.read(request(RRFRanker(30), 7, offset=2, round_decimal=3)) == Fusion("rrf", 7, 2, 3, k=30)
    weighted = Fusion("weighted", 10, weights=(0.5, 1.0))
    assert fusion.read(request(WeightedRanker(0.5, 1))) == weighted
    plain = Fusion("weighted", 10, weights=(0.5, 1.0), normalised=False)
    assert fusion.read(request(WeightedRanker(0.5, 1, norm_score=False))) == plain
    assert fusion.read(request(rerank_function(reranker="rrf", k=5))) == Fusion("rrf", 10, k=5)
    assert fusion.read(request(rerank_function(reranker="weighted", weights=[0.5, 1]))) == plain
    squashed = rerank_function(reranker="weighted", weights=[0.5, 1], norm_score=True)
    assert fusion.read(request(squashed)) == weighted


def test_reads_what_other_sdks_send():
    assert fusion.read(with_params(limit="4")) == Fusion("rrf", 4, k=60)
    sent = with_params(strategy="rrf", params='{"k":60}', round_decimal="-1", limit="4", offset="0")
    assert fusion.read(sent) == Fusion("rrf", 4)
    sent = with_params(strategy='"weighted"', params='{"weights":[0.9,0]}', limit="4")
    assert fusion.read(sent) == Fusion("weighted", 4, weights=(0.9, 0.0))


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (with_params(), "limit is None"),
        (with_params(limit="many"), "limit is 'many'"),
        (with_params(limit="0"), "limit is 0"),
        (with_params(limit="16000", offset="400"), "16400"),
        (with_params(limit="9" * 5000), "a whole number"),
        (with_params(limit="1", round_decimal="9"), "round_decimal is 9"),
        (with_params(limit="1", strategy="expr"), "'expr'"),
        (with_params(limit="1", params="[1]"), "a JSON object"),
        (with_params(limit="1", params='{"k": 0}'), "k of the ranker"),
        (with_params(limit="1", params='{"k": "60"}'), "k of the ranker"),
        (with_params(limit="1", params='{"k": NaN}'), "k of the ranker"),
        (with_params(limit="1", strategy="weighted", params='{"weights": [1]}'), "2 numbers from 0 to 1"),
        (with_params(limit="1", strategy="weighted", params='{"weights": [1, 1.5]}'), "2 numbers from 0 to 1"),
        (with_params(limit="1", strategy="weighted"), "2 numbers from 0 to 1"),
        (with_params(limit="1", group_by_field="year"), "group_by_field"),
        (with_params(limit="1", searches=0), "holds 0 searches"),
        (with_params(limit="1", searches=1025), "holds 1025 searches"),
        (request(rerank_function(reranker="decay")), "'decay'"),
        (request(rerank_function(reranker="weighted", weights=[1, 1], norm_score="perhaps")), "norm_score"),
    ],
)
def test_refuses_what_it_cannot_fuse(sent, says):
    with pytest.raises(UsageError) as raised:
        fusion.read(sent)
    assert says in str(raised.value)


@pytest.mark.parametrize("strings", [False, True])
def test_reciprocal_ranks_by_the_formula(strings):
    rng = np.random.default_rng(0)
    lists = [rng.permutation(40)[:20].tolist() for _ in range(3)]
    lists[2] = []
    name = (lambda i: f"row {i:03}") if strings else int
    found = Fusion("rrf", 8, 3, k=10).fuse(
        [ranking([name(i) for i in ids], np.zeros(len(ids), np.float32)) for ids in lists], ["IP", "L2", "IP"]
    )
    scores = defaultdict(float)
    for ids in lists:
        for rank, id_ in enumerate(ids, 1):
            scores[id_] += 1 / (10 + rank)
    expected = sorted(scores, key=lambda id_: (-round(scores[id_], 6), id_))[3:11]
    assert found.ids == [name(id_) for id_ in expected]
    np.testing.assert_allclose(found.scores, [scores[id_] for id_ in expected], rtol=1e-6)


def test_large_ids_stay_exact():
    ids = [2**62 + 1, 2**62, 2**53 + 1]
    found = Fusion("rrf", 5).fuse(
        [ranking(ids, np.zeros(3, np.float32)), ranking([], np.zeros(0, np.float32))], ["L2"] * 2
    )
    assert found.ids == ids


@pytest.mark.parametrize("metrics", [("COSINE", "L2"), ("IP", "BM25"), ("L2", "L2")])
@pytest.mark.parametrize("normalised", [True, False])
def test_weighted_scores_by_the_formula(metrics, normalised):
    rng = np.random.default_rng(1)
    rankings = [ranking(rng.permutation(12)[:8].tolist(), rng.random(8).astype(np.float32)) for _ in metrics]
    found = Fusion("weighted", 20, weights=(0.3, 0.9), normalised=normalised).fuse(rankings, metrics)
    scores = defaultdict(float)
    for ranked, metric, weight in zip(rankings, metrics, (0.3, 0.9), strict=True):
        for id_, score in zip(ranked.ids, ranked.scores.tolist(), strict=True):
            # without norm_score only distances among similarities are turned round
            squash = normalised or (metric == "L2" and "COSINE" in metrics)
            scores[id_] += weight * (SQUASHED[metric](score) if squash else score)
    expected = sorted(scores, key=scores.get, reverse=normalised or metrics != ("L2", "L2"))
    assert found.ids == expected
    np.testing.assert_allclose(found.scores, [scores[id_] for id_ in expected], rtol=1e-5)


def test_rounds_as_milvus_does():
    scores = np.array([0.125, 0.124, -0.126], np.float32)
    found = Fusion("weighted", 3, round_decimal=2, weights=(1.0,), normalised=False).fuse(
        [ranking([1, 2, 3], scores)], ["IP"]
    )
    np.testing.assert_array_equal(found.scores, np.array([0.13, 0.12, -0.13], np.float32))


@pytest.fixture(scope="module")
def engine(lite: alula.Server):
    """A collection with one vector field of each kind, filled, and a query for each."""
    rng = np.random.default_rng(2)
    schema = lite.client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    for name in ("cosine", "ip", "l2"):
        schema.add_field(name, DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field("binary", DataType.BINARY_VECTOR, dim=64)
    index = lite.client.prepare_index_params()
    natives = {"sparse": "SPARSE_INVERTED_INDEX", "binary": "BIN_FLAT"}
    for name, metric in METRICS.items():
        index.add_index(name, index_type=natives.get(name, "FLAT"), metric_type=metric)
    lite.client.create_collection("fused", schema=schema, index_params=index, consistency_level="Strong")

    def values():
        dense = {name: rng.standard_normal(DIM).tolist() for name in ("cosine", "ip", "l2")}
        sparse = {int(dim): float(rng.random() + 0.1) for dim in rng.choice(30, 6, replace=False)}
        return {**dense, "sparse": sparse, "binary": rng.bytes(8)}

    lite.client.insert("fused", [{"id": i, **values()} for i in range(ROWS)])
    return lite.client, values()


RANKERS = {"rrf": RRFRanker(), "rrf of 5": RRFRanker(5), "weighted": None}


@pytest.mark.parametrize(
    "fields", [("cosine", "l2"), ("ip", "sparse", "binary"), ("cosine", "ip", "l2"), ("binary", "l2")]
)
@pytest.mark.parametrize("ranker", RANKERS)
@pytest.mark.parametrize("shown", [{"limit": 10}, {"limit": 6, "offset": 4}, {"limit": 9, "round_decimal": 3}])
def test_fuses_as_the_engine_does(engine, fields, ranker, shown):
    client, query = engine
    ranker = RANKERS[ranker] or WeightedRanker(*np.linspace(0.2, 0.9, len(fields)).tolist())
    metrics = [METRICS[field] for field in fields]
    searches, rankings = [], []
    for field, metric in zip(fields, metrics, strict=True):
        searches.append(AnnSearchRequest([query[field]], field, {"metric_type": metric}, TAKEN))
        (hits,) = client.search("fused", [query[field]], anns_field=field, limit=TAKEN)
        rankings.append(ranking(hits.ids, np.array(hits.distances, np.float32)))
    (expected,) = client.hybrid_search("fused", searches, ranker, **shown)

    found = fusion.read(request(ranker, searches=len(fields), **shown)).fuse(rankings, metrics)
    np.testing.assert_allclose(found.scores, expected.distances, rtol=1e-6, atol=2e-7)

    # the engine orders rows of one score by no rule: they may change places, or be cut off at another one
    everything = Fusion(
        **{**vars(fusion.read(request(ranker, searches=len(fields), **shown))), "limit": 1000, "offset": 0}
    )
    all_scores = everything.fuse(rankings, metrics)
    score_of = dict(zip(all_scores.ids, all_scores.scores.tolist(), strict=True))
    assert [score_of[id_] for id_ in expected.ids] == pytest.approx([score_of[id_] for id_ in found.ids], abs=1e-7)


def test_the_parameters_are_json_of_any_spelling():
    sent = with_params(limit="3", strategy="weighted", params=json.dumps({"weights": [1, 0], "norm_score": "false"}))
    assert not fusion.read(sent).normalised
