"""LlamaIndex's and Haystack's stores on Milvus, with an index type of Alula's behind the gateway."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

import alula
from alula import encoder_store
from tests.small_collections import best, scores
from tests.tiny_encoders import random_vectors, write_drq
from tools.servers import python_stores
from tools.servers.lite import connected

DIM, ROWS = 8, 40
VECTORS = random_vectors(ROWS, DIM, seed=1)
QUERIES = VECTORS[:5] + random_vectors(5, DIM, seed=9) / 10


@pytest.fixture(scope="module", params=["lite", "standalone"])
def place(request, tmp_path_factory):
    """Addresses of a gateway and of the Milvus behind it, which has the encoder."""
    upstream = request.getfixturevalue("lite_server" if request.param == "lite" else "milvus_server").uri
    encoder = write_drq(tmp_path_factory.mktemp("encoders") / "python-stores.onnx", metric="COSINE")
    with connected(upstream) as direct:
        encoder_store.push(direct, encoder.path, replace=True)
    return request.getfixturevalue(f"gateway_to_{request.param}").uri, upstream, encoder.path


@pytest.fixture
def name():
    return f"alula_{uuid.uuid4().hex[:12]}"


def expected(query, k, among=range(ROWS)):
    """Ids of the nearest rows by brute force, and their cosines."""
    chosen = np.array(among)
    values = scores(query, VECTORS[chosen], "COSINE")
    order = best(values, k, "COSINE")
    return [f"row {chosen[i]}" for i in order], [values[i] for i in order]


def check(ids, values, right):
    assert list(ids) == right[0]
    assert list(values) == pytest.approx(right[1], rel=1e-4)


def check_is_of_alula(upstream, name, path):
    with connected(upstream) as server:
        collection = alula.Collection.open(server, name, encoder=path)
        (hits,) = collection.search(QUERIES[0], limit=6, consistency_level="Strong")
        assert [hit.id for hit in hits] == expected(QUERIES[0], 6)[0]
        server.client.drop_collection(name)


def test_llama_index(place, name, monkeypatch):
    monkeypatch.syspath_prepend(str(python_stores.install("llama-index")))
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery
    from llama_index.vector_stores.milvus import MilvusVectorStore

    gateway, upstream, path = place
    store = MilvusVectorStore(
        uri=gateway,
        collection_name=name,
        dim=DIM,
        similarity_metric="COSINE",
        consistency_level="Strong",
        index_config={"index_type": "DRQ", "encoder": path.stem},
    )
    store.add(
        [
            TextNode(id_=f"row {i}", text=f"text {i}", embedding=VECTORS[i].tolist(), metadata={"year": 1900 + i})
            for i in range(ROWS)
        ]
    )
    for query in QUERIES:
        found = store.query(VectorStoreQuery(query_embedding=query.tolist(), similarity_top_k=6))
        check(found.ids, found.similarities, expected(query, 6))
    late = MetadataFilters(filters=[MetadataFilter(key="year", value=1920, operator=">=")])
    found = store.query(VectorStoreQuery(query_embedding=QUERIES[0].tolist(), similarity_top_k=4, filters=late))
    check(found.ids, found.similarities, expected(QUERIES[0], 4, range(20, ROWS)))
    store.delete_nodes(["row 0"])
    found = store.query(VectorStoreQuery(query_embedding=QUERIES[0].tolist(), similarity_top_k=4))
    check(found.ids, found.similarities, expected(QUERIES[0], 4, range(1, ROWS)))
    store.add([TextNode(id_="row 0", text="text 0", embedding=VECTORS[0].tolist(), metadata={"year": 1900})])
    check_is_of_alula(upstream, name, path)


def test_haystack(place, name, monkeypatch):
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    monkeypatch.syspath_prepend(str(python_stores.install("haystack")))
    from haystack import Document
    from milvus_haystack import MilvusDocumentStore
    from milvus_haystack.milvus_embedding_retriever import MilvusEmbeddingRetriever

    gateway, upstream, path = place
    store = MilvusDocumentStore(
        connection_args={"uri": gateway},
        collection_name=name,
        consistency_level="Strong",
        index_params={"index_type": "DRQ", "metric_type": "COSINE", "params": {"encoder": path.stem}},
        search_params={"metric_type": "COSINE", "params": {}},
    )
    rows = [
        Document(id=f"row {i}", content=f"text {i}", embedding=VECTORS[i].tolist(), meta={"year": 1900 + i})
        for i in range(ROWS)
    ]
    store.write_documents(rows)
    assert store.count_documents() == ROWS
    retriever = MilvusEmbeddingRetriever(document_store=store, top_k=6)
    for query in QUERIES:
        found = retriever.run(query_embedding=query.tolist())["documents"]
        # it scales cosines to shares of 1
        check([one.id for one in found], [2 * one.score - 1 for one in found], expected(query, 6))
    late = {"field": "meta.year", "operator": ">=", "value": 1920}
    found = retriever.run(query_embedding=QUERIES[0].tolist(), filters=late)["documents"]
    assert [one.id for one in found] == expected(QUERIES[0], 6, range(20, ROWS))[0]
    store.delete_documents(["row 0"])
    found = retriever.run(query_embedding=QUERIES[0].tolist())["documents"]
    assert [one.id for one in found] == expected(QUERIES[0], 6, range(1, ROWS))[0]
    store.write_documents(rows[:1])
    check_is_of_alula(upstream, name, path)
