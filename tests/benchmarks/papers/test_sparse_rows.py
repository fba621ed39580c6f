"""Sparse rows and their cost against the encoder and the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.flops import SparseEncoder
from benchmarks.papers.sparse_rows import build_index, count_cost, encode, posting_bytes, split_queries


def test_rows_and_their_cost() -> None:
    torch.manual_seed(0)
    model = SparseEncoder(8, 32, 6)
    torch.nn.init.normal_(model.weight)
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    rows = encode(model.requires_grad_(False), vectors)
    np.testing.assert_allclose(rows.toarray(), model.dense(*model(torch.from_numpy(vectors))).numpy(), atol=1e-7)
    used = rows.toarray() > 0
    pairs = [(used[i] & used[j]).sum() for i in range(50) for j in range(50) if i != j]
    cost = count_cost(rows)
    assert cost.flops == pytest.approx(np.mean(pairs))
    assert cost.nnz == pytest.approx(used.sum(1).mean())
    assert cost.r_sub == pytest.approx(np.mean(pairs) * 32 / used.sum(1).mean() ** 2)

    index = build_index(rows)
    # a number in its block of 65,536 rows, and a float
    assert posting_bytes(index, reranked=False) == pytest.approx(6 * rows.nnz / 50)
    for i, query in enumerate(split_queries(rows)):
        products = rows.toarray() @ rows.toarray()[i]
        found = index.search(query, 5, rerank=0).positions[0]
        np.testing.assert_allclose(products[found], np.sort(products)[::-1][:5], atol=1e-6)
