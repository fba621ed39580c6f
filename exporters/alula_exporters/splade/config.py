"""Options of a SPLADE model's fine-tuning, checked before any data is read."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from alula.errors import UsageError


@dataclass(frozen=True)
class SpladeConfig:
    """Options of a SPLADE model's fine-tuning.

    Args:
        flops: Requested F = sum_j p_j q_j, where p_j and q_j are the probabilities that dimension j is not zero in a
            row and in a query: multiplications of a query with a row. None for the cost of the model before training.
        query_weight: Weight of the queries' FLOPs regulariser, that of the rows being 1; 3 in SPLADE (Formal et al.,
            SIGIR 2021). Queries by a table of token weights have none.
        max_nnz: Most non-zeros in a row or a query, the heaviest; None for the model's own limit, or 256.
        steps: Optimiser steps.
        batch: Queries per step, each with a document that answers it.
        learning_rate: Adam's highest.
        warm_up: Share of the steps with linear warm-up, before a cosine decay.
        clip: Largest norm of the gradient.
        seed: Seed of everything random.

    Raises:
        UsageError: If a number is out of range.
    """

    flops: float | None = None
    query_weight: float = 3.0
    max_nnz: int | None = None
    steps: int = 1000
    batch: int = 32
    learning_rate: float = 2e-5
    warm_up: float = 0.1
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_nnz", "steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.batch < 2:
            raise UsageError(f"batch is {self.batch}; a query needs another one's document to differ from, so give 2.")
        for name in ("flops", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} is {value:g}; it must be a positive number.")
        if not 0 <= self.query_weight < math.inf:
            raise UsageError(f"query_weight is {self.query_weight:g}; it must be 0 or a positive number.")

    def recipe(self) -> dict[str, Any]:
        """The options for the encoder file, without unused ones."""
        return {name: value for name, value in asdict(self).items() if value is not None}
