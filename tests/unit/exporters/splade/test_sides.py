from __future__ import annotations

import numpy as np
import pytest

from alula_exporters.sparse_checkpoints import open_sparse_model
from alula_exporters.splade.sides import Sides
from tests.tiny_text_models import TEXTS

NNZ = 12


@pytest.mark.parametrize("name", ["splade", "inference-free"])
@pytest.mark.parametrize("queries", [False, True])
def test_weights_are_those_of_sentence_transformers(text_models, name, queries):
    sparse = open_sparse_model(text_models / name)
    encode = sparse.model.encode_query if queries else sparse.model.encode_document
    expected = encode(TEXTS, max_active_dims=NNZ).to_dense().numpy()
    found = Sides(sparse, NNZ).encode(TEXTS, queries=queries).toarray()
    assert (found > 0).sum(1).max() <= NNZ
    assert len(np.unique(expected > 0, axis=0)) > 4  # so that it matters which text is which
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["splade", "inference-free"])
def test_both_sides_learn(text_models, name):
    sides = Sides(open_sparse_model(text_models / name), NNZ)
    for side in (sides.rows, sides.queries):
        sides.zero_grad()
        side(TEXTS).sum().backward()
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in sides.parameters())


def cost(sides, queries, documents):
    """F of `SpladeConfig`, by the rows that a file has."""
    used = [(sides.encode(queries, queries=True) > 0).mean(0), (sides.encode(documents) > 0).mean(0)]
    return float(used[0] @ used[1])


@pytest.mark.parametrize(("name", "share"), [("splade", 0.8), ("splade", 1.2), ("inference-free", 1.2)])
def test_a_shift_of_the_bias_meets_a_budget(word_models, name, share):
    sides = Sides(open_sparse_model(word_models / name), None)
    queries, documents = TEXTS[::2], TEXTS[1::2]
    budget = share * cost(sides, queries, documents)
    sides.meet_budget(queries, documents, budget)
    assert cost(sides, queries, documents) == pytest.approx(budget, rel=0.1)  # of 12 pairs


def test_the_shift_is_bounded(word_models):
    sparse = open_sparse_model(word_models / "splade")
    bias = sparse.modules[0].auto_model.get_output_embeddings().bias
    before = bias.detach().clone()
    Sides(sparse, None).meet_budget(TEXTS, TEXTS, 1e9)
    np.testing.assert_allclose((bias - before).detach().numpy(), 0.5, atol=1e-4)
