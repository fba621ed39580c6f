from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.quality import exact_neighbours, share_found, similarity


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_similarity_against_numpy(vectors, metric):
    q, x = vectors[:5].astype(np.float64), vectors[5:50].astype(np.float64)
    expected = {
        "COSINE": (q / np.linalg.norm(q, axis=1)[:, None]) @ (x / np.linalg.norm(x, axis=1)[:, None]).T,
        "IP": q @ x.T,
        "L2": -((q[:, None] - x[None]) ** 2).sum(2) / 2,
    }[metric]
    got = similarity(torch.from_numpy(vectors[:5]), torch.from_numpy(vectors[5:50]), metric)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-4)
    near = exact_neighbours(torch.from_numpy(vectors[:5]), torch.from_numpy(vectors[5:50]), metric, 3)
    assert np.array_equal(near.numpy(), np.argsort(-expected, axis=1)[:, :3])


def test_share_found_counts_true_neighbours_among_the_best():
    truth = torch.tensor([[0, 1], [2, 3]])
    scores = torch.tensor([[9.0, 1.0, 8.0, 7.0], [0.0, 1.0, 3.0, 2.0]])
    assert share_found(truth, scores, 2) == 0.75
    assert share_found(truth, scores, 4) == share_found(truth, scores, 99) == 1.0
