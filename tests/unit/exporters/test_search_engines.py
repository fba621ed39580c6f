"""Sparse embeddings of sentence-transformers in Milvus, against their inner products."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from pymilvus import MilvusClient

from alula_exporters.backbones.text import open_checkpoint
from alula_exporters.search_engines import semantic_search_milvus
from tests.tiny_text_models import TEXTS


def sparse(rows, dims, seed):
    """Rows with a third of their weights; the fourth has none."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.rand(rows, dims, generator=generator)
    dense[dense < 0.66] = 0
    dense[3] = 0
    return dense.to_sparse_coo()


def test_results_are_the_inner_products(lite):
    queries, rows = sparse(130, 40, 1), sparse(300, 40, 2)
    found, seconds, index = semantic_search_milvus(queries, rows, top_k=7, output_index=True, uri=lite.uri)
    assert seconds > 0
    scores = (queries.to_dense() @ rows.to_dense().T).numpy()
    assert [len(one) for one in found] == [0 if i == 3 else 7 for i in range(130)]
    for i, one in enumerate(found):
        np.testing.assert_allclose([hit["score"] for hit in one], -np.sort(-scores[i])[: len(one)], rtol=1e-5)
        np.testing.assert_allclose(
            [hit["score"] for hit in one], [scores[i, hit["corpus_id"]] for hit in one], rtol=1e-5
        )
    client, name = index
    assert isinstance(client, MilvusClient)
    again, _ = semantic_search_milvus(queries[5], corpus_index=index, top_k=2)
    assert again == [found[5][:2]]
    client.drop_collection(name)


def test_a_model_of_sentence_transformers(lite, text_models):
    model = open_checkpoint(text_models / "splade", "SparseEncoder")
    queries, rows = model.encode_query(["a kite of fire", "light on the water"]), model.encode_document(TEXTS)
    found, _, (client, name) = semantic_search_milvus(queries, rows, top_k=3, output_index=True, uri=lite.uri)
    best = model.similarity(queries, rows).topk(3)
    assert [[hit["corpus_id"] for hit in one] for one in found] == best.indices.tolist()
    client.drop_collection(name)


def test_the_signature_is_that_of_the_other_helpers():
    from sentence_transformers.sparse_encoder.search_engines import semantic_search_qdrant

    ours, theirs = (inspect.signature(one).parameters for one in (semantic_search_milvus, semantic_search_qdrant))
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]


def test_refusals():
    rows = sparse(5, 8, 0)
    with pytest.raises(ValueError, match="Query embeddings must be a sparse COO tensor"):
        semantic_search_milvus(rows.to_dense(), rows)
    with pytest.raises(ValueError, match="Corpus embeddings must be a sparse COO tensor"):
        semantic_search_milvus(rows, rows.to_sparse_csr())
    with pytest.raises(ValueError, match="got 3D"):
        semantic_search_milvus(torch.rand(2, 2, 2).to_sparse_coo(), rows)
    with pytest.raises(ValueError, match="corpus_embeddings or corpus_index"):
        semantic_search_milvus(rows)
