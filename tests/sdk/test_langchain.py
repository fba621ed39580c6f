"""LangChain's store on Milvus, with an index type of Alula's behind the gateway."""

from __future__ import annotations

import asyncio
import uuid

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

import alula
from alula import encoder_store
from tests.small_collections import best, scores
from tests.tiny_encoders import random_vectors, write_drq, write_flops
from tools.servers import python_stores
from tools.servers.lite import connected

DIM, TEXTS = 8, [f"text {i}" for i in range(60)]
VECTORS = dict(zip(TEXTS, random_vectors(60, DIM, seed=1), strict=True))
KINDS = {
    "lite FLOPS_SPARSE": lambda path: write_flops(path, dim=32, max_nnz=16, metric="COSINE"),
    "lite DRQ": lambda path: write_drq(path, metric="L2"),
    "standalone DRQ": lambda path: write_drq(path, metric="COSINE"),
}


class Known(Embeddings):
    """Embeddings of known texts; a query is the vector of the text of that name, moved a little."""

    def embed_documents(self, texts):
        return [VECTORS[text].tolist() for text in texts]

    def embed_query(self, text):
        return query(text).tolist()


def query(text):
    return VECTORS[text] + random_vectors(1, DIM, seed=9)[0] / 10


@pytest.fixture(scope="module")
def store_class():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(python_stores.install("langchain")))
        from langchain_milvus import Milvus
    return Milvus


@pytest.fixture(scope="module", params=KINDS)
def made(request, store_class, tmp_path_factory):
    """A store that LangChain makes and fills, its encoder, and the address of Milvus."""
    server, index_type = request.param.split()
    path = tmp_path_factory.mktemp("encoders") / f"langchain-{index_type.lower()}.onnx"
    encoder = KINDS[request.param](path)
    upstream = request.getfixturevalue("lite_server" if server == "lite" else "milvus_server").uri
    with connected(upstream) as direct:
        encoder_store.push(direct, path, replace=True)
    metric = encoder.info.metric
    store = store_class.from_texts(
        TEXTS[:40],
        Known(),
        metadatas=[{"year": 1900 + i} for i in range(40)],
        ids=[f"row {i}" for i in range(40)],
        collection_name=f"alula_{uuid.uuid4().hex[:12]}",
        connection_args={"uri": request.getfixturevalue(f"gateway_to_{server}").uri},
        consistency_level="Strong",
        index_params={"index_type": index_type, "metric_type": metric, "params": {"encoder": path.stem}},
        search_params={"metric_type": metric, "params": {}},
    )
    yield store, encoder, upstream
    store.client.drop_collection(store.collection_name)


def expected(encoder, text, texts, k):
    """The nearest texts by brute force, with their scores."""
    vectors = np.array([VECTORS[text] for text in texts])
    values = scores(query(text), vectors, encoder.info.metric)
    return [(texts[i], values[i]) for i in best(values, k, encoder.info.metric)]


def check(found, right):
    assert [document.page_content for document, _ in found] == [text for text, _ in right]
    assert [score for _, score in found] == pytest.approx([score for _, score in right], rel=1e-4)


def test_the_nearest_texts_are_found_with_their_scores(made):
    store, encoder, _ = made
    for text in TEXTS[:5]:
        found = store.similarity_search_with_score(text, k=6)
        check(found, expected(encoder, text, TEXTS[:40], 6))
        assert [1900 + TEXTS.index(document.page_content) for document, _ in found] == [
            document.metadata["year"] for document, _ in found
        ]


def test_an_asynchronous_client_finds_the_same(made):
    store, encoder, _ = made
    found = asyncio.run(store.asimilarity_search_with_score("text 8", k=6))
    check(found, expected(encoder, "text 8", TEXTS[:40], 6))


def test_a_filter_holds(made):
    store, encoder, _ = made
    found = store.similarity_search_with_score("text 3", k=5, expr="year >= 1920")
    check(found, expected(encoder, "text 3", TEXTS[20:40], 5))


def test_diverse_texts_need_the_vectors_as_output(made):
    store, encoder, _ = made
    found = store.max_marginal_relevance_search("text 7", k=3, fetch_k=10)
    near = [text for text, _ in expected(encoder, "text 7", TEXTS[:40], 10)]
    assert found[0].page_content == near[0]
    assert len({document.page_content for document in found} & set(near)) == 3


def test_texts_are_added_replaced_and_deleted(made):
    store, encoder, _ = made
    store.add_texts(TEXTS[40:], metadatas=[{"year": 2000}] * 20, ids=[f"row {i}" for i in range(40, 60)])
    check(store.similarity_search_with_score("text 45", k=4), expected(encoder, "text 45", TEXTS, 4))
    store.delete(ids=["row 45"])
    left = [text for text in TEXTS if text != "text 45"]
    check(store.similarity_search_with_score("text 45", k=4), expected(encoder, "text 45", left, 4))
    store.upsert(ids=["row 44"], documents=[Document(page_content="text 45", metadata={"year": 2001})])
    left = [text for text in TEXTS if text != "text 44"]
    check(store.similarity_search_with_score("text 45", k=4), expected(encoder, "text 45", left, 4))
    store.delete(ids=[f"row {i}" for i in range(40, 60)])
    store.add_texts([TEXTS[44]], metadatas=[{"year": 2000}], ids=["row 44"])
    store.delete(expr="year == 2000")
    check(store.similarity_search_with_score("text 3", k=4), expected(encoder, "text 3", TEXTS[:40], 4))


def test_what_it_made_is_a_collection_of_alulas(made):
    store, encoder, upstream = made
    with connected(upstream) as server:
        collection = alula.Collection.open(server, store.collection_name, encoder=encoder.path)
        (hits,) = collection.search(query("text 3"), limit=6, consistency_level="Strong")
    right = expected(encoder, "text 3", TEXTS[:40], 6)
    assert [hit.id for hit in hits] == [f"row {TEXTS.index(text)}" for text, _ in right]
