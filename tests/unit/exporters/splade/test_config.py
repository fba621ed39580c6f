from __future__ import annotations

import pytest

from alula.errors import UsageError
from alula_exporters.splade import SpladeConfig


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 1}, "so give 2"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"max_nnz": 0}, "max_nnz is 0"),
        ({"flops": 0.0}, "flops is 0; it must be a positive number"),
        ({"flops": float("nan")}, "flops is nan"),
        ({"learning_rate": -1.0}, "learning_rate is -1"),
        ({"query_weight": -0.5}, "query_weight is -0.5"),
    ],
)
def test_what_cannot_be_trained_is_refused(options, words):
    with pytest.raises(UsageError, match=words):
        SpladeConfig(**options)


def test_the_recipe_has_what_was_chosen():
    assert "flops" not in SpladeConfig().recipe()
    assert SpladeConfig(flops=1.5).recipe()["flops"] == 1.5
