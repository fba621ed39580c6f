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
