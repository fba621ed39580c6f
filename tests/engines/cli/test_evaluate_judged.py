"""``alula evaluate --qrels``: the measures of judged queries, of collections of texts and of vectors."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymilvus import DataType, Function, FunctionType, MilvusClient

from alula import connect
from alula.evaluation.judgements import scores
from tests.fixtures.command_line import ROWS
from tests.small_collections import best
from tests.small_collections import scores as true_scores
from tests.tiny_encoders import VOCABULARY, TinyText, random_vectors, write_drq, write_flops

WORDS = sorted(VOCABULARY)
WANTED = ((0, 20), (2, 30))  # query and row


@pytest.fixture(scope="module")
def texts():
    """Sixty documents of three words."""
    rng = np.random.default_rng(5)
    return {f"d{i}": " ".join(rng.choice(WORDS, 3)) for i in range(60)}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    return {
        "drq": write_drq(folder / "drq.onnx", backbone=TinyText()),
        "flops": write_flops(folder / "flops.onnx", backbone=TinyText()),
    }


@pytest.fixture(scope="module")
def beir(texts, tmp_path_factory):
    """A folder in BEIR's layout: the first word of a document as query for it; one query is not judged."""
    folder = tmp_path_factory.mktemp("beir")
    queries = [{"_id": f"q{i}", "text": text.split()[0], "metadata": {}} for i, text in enumerate(texts.values())]
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    judged = [f"q{i}\td{i}\t{1 + i % 2}" for i in range(len(texts) - 1)]
    (folder / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    return folder


@pytest.fixture
def docs(alula, texts, encoders, lite_uri, tmp_path):
    """Collections ``drq`` and ``flops`` of the documents, in Milvus Lite."""
    pq.write_table(pa.table({"id": list(texts), "text": list(texts.values())}), tmp_path / "docs.parquet")
    for name, tiny in encoders.items():
        at = ["--uri", lite_uri, "--encoder", tiny.path]
        if alula("describe", name, "--uri", lite_uri).code:
            kind = {"drq": "DRQ", "flops": "FLOPS_SPARSE"}[name]
            named = ["--text-column", "text"]
            assert alula("create", name, "--index-type", kind, "--like", "docs.parquet", *named, *at).code == 0
            loaded = alula("load", name, "docs.parquet", *named, *at)
            assert loaded.code == 0, loaded
    opened = ["--uri", lite_uri, *(word for tiny in encoders.values() for word in ("--encoder", tiny.path))]
    return lambda *names: ["evaluate", *names, *opened]


@pytest.fixture
def judged(beir):
    return ["--queries", beir / "queries.jsonl", "--qrels", beir / "test.tsv"]


def expected(tiny, texts):
    """nDCG@10, MRR@10 and recall@100 of numpy's cosines over all documents."""
    rows, queries = (
        tiny.backbone.embed(list(texts.values())),
        tiny.backbone.embed([text.split()[0] for text in list(texts.values())[:-1]], queries=True),
    )
    found = []
    for i, query in enumerate(queries):
        order = best(true_scores(query, rows, "COSINE"), len(texts), "COSINE")
        found.append(scores([f"d{place}" for place in order], {f"d{i}": 1 + i % 2}))
    return np.mean(found, axis=0)


def test_two_collections_of_texts_and_their_fusions(alula, docs, judged, encoders, texts, tmp_path):
    given = [*docs("drq", "flops"), *judged]
    result = alula(*given, "--output", "figures.json", "--report", "page.html")
    assert (result.code, result.err) == (0, ""), result
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["queries"], figures["rows"]) == (59, 60)
    assert "1 further queries of queries.jsonl have no relevant row" in figures["notes"]
    systems = {(system["name"], system["settings"].get("fusion")): system for system in figures["systems"]}
    pair = "drq DRQ hamming + flops FLOPS_SPARSE"
    exact = "drq, exact COSINE of every row"
    named = [("drq DRQ hamming", None), ("flops FLOPS_SPARSE", None), (pair, "rrf"), (pair, "weighted")]
    others = {(exact, None), ("flops, exact COSINE of every row", None)}
    assert {*named, *others} == systems.keys()
    truth = expected(encoders["drq"], texts)
    for system in systems.values():
        measures = system["measures"]
        assert measures.keys() == {"nDCG@10", "MRR@10", "recall@100"}
        assert all(one["low"] <= one["value"] <= one["high"] for one in measures.values())
    for name in (exact, "drq DRQ hamming"):  # all 60 rows are candidates, so that both rank by the exact vectors
        found = [one["value"] for one in systems[name, None]["measures"].values()]
        np.testing.assert_allclose(found, truth, atol=0.02)
    assert systems[pair, "rrf"]["memory"] == sum(systems[name]["memory"] for name in named[:2])
    assert figures["systems"][0]["name"] == exact
    assert figures["systems"][0]["differences"] == {}
    for words in ("nDCG@10", "MRR@10", "recall@100", "fusion rrf", "embedding a query with drq.onnx takes"):
        assert words in result.out
    page = (tmp_path / "page.html").read_text()
    for words in ("Ranking quality", pair, "59 judged queries", "paired"):
        assert words in page


def test_weights_of_a_fusion(alula, docs, judged, fails):
    fails(2, [*docs("drq"), *judged, "--weight", "1"], "--weight is of a fusion of two", "--bm25")
    fails(2, [*docs("drq"), "--weight", "1"], "--weight: only with judged queries")
    result = alula(*docs("drq", "flops"), *judged, "--weight", "1", "--weight", "0", "--format", "json")
    assert (result.code, result.err) == (0, ""), result
    systems = {(one["name"], one["settings"].get("weight")): one["measures"] for one in result.json[0]["systems"]}
    for weight, name in ((1, "drq DRQ hamming"), (0, "flops FLOPS_SPARSE")):
        fused = systems["drq DRQ hamming + flops FLOPS_SPARSE", weight]
        assert fused["nDCG@10"]["value"] == pytest.approx(systems[name, None]["nDCG@10"]["value"])


def test_vectors_with_an_id_column(alula, in_lite, tmp_path):
    vectors, queries = random_vectors(ROWS, 8), random_vectors(30, seed=4)
    ranked = [best(true_scores(query, vectors, "COSINE"), 30, "COSINE").tolist() for query in queries]
    pq.write_table(pa.table({"qid": range(100, 130), "v": list(queries)}), tmp_path / "q.parquet")
    ordinary = [[i for i in order if i >= 10][1] for order in ranked]  # the second nearest with a plain key is relevant
    lines = [f"{100 + i}\trow {row}\t1" for i, row in enumerate(ordinary)]
    (tmp_path / "qrels.tsv").write_text("\n".join(lines) + "\n")
    opened = ["evaluate", in_lite.name, *in_lite.opened, "--queries", "q.parquet", "--qrels"]
    given = [*opened, "qrels.tsv", "--candidates", "100,200", "--compare", "FLAT,HNSW", "--format", "json"]
    result = alula(*given)
    assert (result.code, result.err) == (0, ""), result
    (figures,) = result.json
    exact, few, all_rows, flat = figures["systems"]
    assert [few["settings"], all_rows["settings"]] == [{"candidates": 100}, {"candidates": 200}]
    assert flat["name"] == "FLAT"
    assert "local mode only" in figures["refused"]["HNSW"]
    mrr = [1 / (order.index(row) + 1) for order, row in zip(ranked, ordinary, strict=True)]
    for system in (exact, all_rows, flat):
        assert system["measures"]["MRR@10"]["value"] == pytest.approx(np.mean(mrr))
        assert system["measures"]["recall@100"]["value"] == 1
    assert flat["differences"]["MRR@10"] == {"value": 0, "low": 0, "high": 0}


K1, B = 1.2, 0.75  # Milvus's defaults


def okapi(query, documents):
    """BM25 (Robertson and Zaragoza, 2009) of each document, with Lucene's idf, which is above 0."""
    counted = [Counter(text.split()) for text in documents]
    mean = np.mean([one.total() for one in counted])

    def score(one):
        norm = K1 * (1 - B + B * one.total() / mean)
        holding = {word: sum(word in other for other in counted) for word in query.split()}
        idf = {word: math.log(1 + (len(counted) - n + 0.5) / (n + 0.5)) for word, n in holding.items()}
        return sum(idf[word] * one[word] * (K1 + 1) / (one[word] + norm) for word in query.split())

    return np.array([score(one) for one in counted])


def fill_bm25(uri, name, texts):
    """A collection as others make it, without Alula: texts, and their BM25 by a function of the server."""
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=16)
    schema.add_field("body", DataType.VARCHAR, max_length=1_000, enable_analyzer=True)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("f", FunctionType.BM25, ["body"], ["words"]))
    index = MilvusClient.prepare_index_params()
    index.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    with connect(uri) as server:
        server.client.create_collection(name, schema=schema, index_params=index)
        server.client.insert(name, [{"id": key, "body": text} for key, text in texts.items()])


def test_bm25_of_the_server(alula, docs, fails, lite_uri, tmp_path):
    opened = docs("drq")
    rng = np.random.default_rng(3)
    texts = {f"d{i}": " ".join(rng.choice(WORDS[-7:], 4 + i)) for i in range(60)}  # of all lengths, so that none tie
    fill_bm25(lite_uri, "lexical", texts)
    queries = {f"q{i}": f"{text.split()[0]} {text.split()[1]}" for i, text in enumerate(texts.values())}
    (tmp_path / "q.jsonl").write_text(
        "".join(json.dumps({"_id": q, "text": text}) + "\n" for q, text in queries.items())
    )
    (tmp_path / "qrels.tsv").write_text("".join(f"q{i}\td{i}\t1\n" for i in range(60)))
    judged = ["--queries", "q.jsonl", "--qrels", "qrels.tsv"]
    result = alula(*opened, *judged, "--bm25", "lexical", "--format", "json")
    assert (result.code, result.err) == (0, ""), result
    (figures,) = result.json
    systems = {system["name"]: system for system in figures["systems"]}
    name = "lexical, BM25 of the server"
    assert systems.keys() == {"drq, exact COSINE of every row", "drq DRQ hamming", name, f"drq DRQ hamming + {name}"}
    truth = []
    for i, query in enumerate(queries.values()):
        found = okapi(query, list(texts.values()))
        order = [row for row in np.argsort(-found, kind="stable") if found[row] > 0]
        truth.append(scores([f"d{row}" for row in order], {f"d{i}": 1}))
    measured = [one["value"] for one in systems[name]["measures"].values()]
    np.testing.assert_allclose(measured, np.mean(truth, axis=0), atol=1e-6)
    assert systems[name]["p50"] > 0
    fails(2, [*opened, *judged, "--bm25", "drq"], "'drq' has no index with the metric BM25", "Milvus 2.5")
    fails(2, [*opened, *judged, "--bm25", "absent"], "no collection 'absent'")
    fails(2, [*opened, "--bm25", "lexical", "--weight", "1"], "--bm25, --weight: only with judged queries", "--qrels")


def test_bm25_needs_the_texts_of_queries_that_are_vectors(alula, fails, in_lite, tmp_path):
    fill_bm25(in_lite.uri, "lexical", {f"row {i}": f"word{i} of {i}" for i in range(ROWS)})
    columns = {"qid": range(3), "v": list(random_vectors(3)), "text": [f"word{20 + i}" for i in range(3)]}
    pq.write_table(pa.table(columns), tmp_path / "q.parquet")
    pq.write_table(pa.table({name: columns[name] for name in ("qid", "v")}), tmp_path / "bare.parquet")
    (tmp_path / "qrels.tsv").write_text("0\trow 20\t1\n2\trow 22\t1\n")
    given = ["evaluate", in_lite.name, *in_lite.opened, "--qrels", "qrels.tsv", "--bm25", "lexical", "--format", "json"]
    result = alula(*given, "--queries", "q.parquet", "--query-column", "v")
    assert (result.code, result.err) == (0, ""), result
    (system,) = (one for one in result.json[0]["systems"] if one["name"] == "lexical, BM25 of the server")
    assert [one["value"] for one in system["measures"].values()] == [1, 1, 1]
    fails(2, [*given, "--queries", "bare.parquet"], "the column 'text'", "bare.parquet")
    with connect(in_lite.uri) as server:
        server.client.drop_collection("lexical")


@pytest.mark.parametrize("ending", [".npy", ".fvecs"])
def test_queries_of_an_array_are_numbered(alula, in_lite, tmp_path, ending):
    queries = random_vectors(3, seed=4)
    if ending == ".npy":
        np.save(tmp_path / "q.npy", queries)
    else:
        numbers = np.column_stack([np.full((3, 1), 8, "<i4").view("<f4"), queries.astype("<f4")])
        (tmp_path / "q.fvecs").write_bytes(numbers.tobytes())
    (tmp_path / "qrels.tsv").write_text("".join(f"{i}\trow {row}\t1\n" for i, row in WANTED))
    given = ["--queries", f"q{ending}", "--qrels", "qrels.tsv", "--format", "json"]
    result = alula("evaluate", in_lite.name, *in_lite.opened, *given)
    assert (result.code, result.err) == (0, ""), result
    (figures,) = result.json
    assert figures["queries"] == 2
    rows = random_vectors(ROWS, 8)
    ranks = [best(true_scores(queries[i], rows, "COSINE"), ROWS, "COSINE").tolist().index(row) for i, row in WANTED]
    reciprocal = [1 / (rank + 1) if rank < 10 else 0 for rank in ranks]
    measures = figures["systems"][0]["measures"]
    assert measures["recall@100"]["value"] == np.mean([rank < 100 for rank in ranks])
    assert measures["MRR@10"]["value"] == pytest.approx(np.mean(reciprocal))


def test_wrong_ways_to_ask(fails, docs, judged, beir, in_lite, encoders, tmp_path):
    def refused(code, *args, words):
        fails(code, args, *words)

    one = docs("drq")
    refused(2, *one, "--qrels", beir / "test.tsv", words=["--queries"])
    refused(2, *docs("drq", "flops"), words=["--qrels"])
    refused(2, *one, *judged, "--k", "5", "--sample", "9", words=["--k, --sample", "--qrels"])
    refused(2, *docs("drq", "flops"), *judged, "--compare", "FLAT", words=["one collection"])
    refused(2, *one, *judged, "--query-column", "title", words=["title", "_id, text"])
    refused(2, *one, "--queries", beir / "queries.jsonl", "--qrels", "no.tsv", words=["no.tsv"])
    (tmp_path / "other.tsv").write_text("a\tb\t1\n")
    refused(
        1, *one, "--queries", beir / "queries.jsonl", "--qrels", "other.tsv", words=["None of the 60 queries", "'a'"]
    )
    (tmp_path / "bare.jsonl").write_text('{"text": "cat"}\n')
    refused(2, *one, "--queries", "bare.jsonl", "--qrels", "other.tsv", words=["no column of query ids", "'_id'"])
    (tmp_path / "rows.tsv").write_text("q0\tx\t1\nq1\tx\t0\n")
    refused(
        1, *one, "--queries", beir / "queries.jsonl", "--qrels", "rows.tsv", words=["none of the 1 relevant", "'id'"]
    )
    (tmp_path / "twice.jsonl").write_text('{"_id": "a", "text": "cat"}\n' * 2)
    refused(1, *one, "--queries", "twice.jsonl", "--qrels", "other.tsv", words=["the id of another"])
    pair = [word for tiny in encoders.values() for word in ("--encoder", tiny.path)]
    refused(1, "evaluate", in_lite.name, *in_lite.at, *pair, *judged, words=["created with the encoder"])
    refused(2, "evaluate", in_lite.name, *in_lite.at, *judged, words=["--encoder"])
    refused(2, "evaluate", *judged, words=["collection"])
