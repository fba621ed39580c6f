from __future__ import annotations

import numpy as np
import pytest
import torch

from alula_exporters.splade.losses import in_batch_loss


def test_the_papers_formula_without_other_documents_of_the_query():
    scores = torch.tensor([[2.0, 1.0, 0.5], [0.0, 3.0, 1.0]])
    own = torch.tensor([[True, False, True], [False, True, False]])  # the third document is of the first query
    expected = [-np.log(np.exp(2) / (np.exp(2) + np.exp(1))), -np.log(np.exp(3) / (1 + np.exp(3) + np.exp(1)))]
    assert in_batch_loss(scores, own).item() == pytest.approx(np.mean(expected))
