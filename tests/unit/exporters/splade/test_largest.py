from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.sparse_checkpoints import open_sparse_model
from alula_exporters.splade.largest import LargestLogits, LargestPooling, pooling_early
from tests.tiny_text_models import TEXTS


def test_values_and_gradients_are_those_of_all_logits():
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(shape, generator=generator) for shape in ((9, 4), (30, 4), (30,))]
    counts, factor = [4, 1, 3, 1], torch.randn(4, 30, generator=generator)

    def by_all_logits(hidden, weight, bias):
        logits = hidden @ weight.T + bias
        return torch.stack([part.amax(0).relu() for part in logits.split(counts)])

    results = []
    for compute in (by_all_logits, lambda hidden, *last: LargestLogits.apply(hidden, counts, *last)):
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        found = compute(*leaves)
        (found.square() * factor).sum().backward()
        results.append([found, *(leaf.grad for leaf in leaves)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
    assert 0 < (results[0][0] > 0).float().mean() < 1  # so that some logits are cut


@pytest.mark.parametrize("name", ["splade", "inference-free"])
def test_a_model_learns_as_by_all_logits(text_models, name):
    def gradients(backbone):
        backbone.zero_grad()
        vectors = backbone.eval()(*backbone.collate(np.array(TEXTS, object)))
        vectors.square().sum().backward()
        return vectors, {one: parameter.grad for one, parameter in backbone.named_parameters()}

    sparse = open_sparse_model(text_models / name)
    expected, of_all = gradients(sparse.backbone())
    early = pooling_early(sparse.backbone())
    assert isinstance(early.parts[0], LargestPooling)
    found, of_largest = gradients(early)
    torch.testing.assert_close(found, expected)
    by_name = {one.removeprefix("parts.0.transformer."): gradient for one, gradient in of_largest.items()}
    assert len(by_name) == len(of_all)
    for one, gradient in of_all.items():
        torch.testing.assert_close(by_name[one.removeprefix("parts.0.")], gradient, atol=1e-5, rtol=1e-4)
    # the model itself is as it was
    torch.testing.assert_close(sparse.backbone().eval()(*early.collate(np.array(TEXTS, object))), expected)


def test_models_of_another_form_are_left_alone(text_models):
    backbone = open_sparse_model(text_models / "csr").backbone()
    parts = list(backbone.parts)
    assert list(pooling_early(backbone).parts) == parts
