"""Source of a trainer's rows: given vectors, or a backbone's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from alula.encoders import Metric
from alula.errors import DataError, UsageError
from alula_exporters.backbones.base import Backbone, compute_device
from alula_exporters.data import F32, Inputs, TrainingData
from alula_exporters.quality import QUERIES, exact_neighbours, label_quality, share_found

_VALIDATED = 5_000
_CHOSEN_BY = 50  # candidates: as selective as a few hundred among all rows


class Source:
    """Vectors of the training data; recomputed while a backbone is trained.

    Args:
        data: The rows: vectors, or what the backbone takes.
        backbone: Makes vectors of raw rows; None where vectors are given.
        trainable: True if the backbone is trained.

    Raises:
        UsageError: If a backbone is missing.

    Attributes:
        trainable: The backbone that is trained, if any.
    """

    def __init__(self, data: TrainingData, backbone: Backbone | None, *, trainable: bool) -> None:
        if backbone is None and data.train.dtype != np.float32:
            raise UsageError("The training rows are images or texts; give a backbone, which embeds them.")
        self.data = data
        self.backbone = backbone
        self.trainable = backbone if trainable else None
        self._fixed: Tensor | None = None
        self._device = compute_device()
        if backbone is not None:
            backbone.requires_grad_(trainable)
        if self.trainable is None:
            self._fixed = self._vectors(data.train)

    def _vectors(self, inputs: Inputs) -> Tensor:
        vectors: F32 = inputs if self.backbone is None else self.backbone.embed(inputs)
        return torch.from_numpy(vectors).to(self._device)

    def all_rows(self) -> Tensor:
        """The vectors of all training rows as they are now, float32 (n, d)."""
        return self._vectors(self.data.train) if self._fixed is None else self._fixed

    def held_out_rows(self) -> Tensor:
        """The vectors of the held-out rows that judge the result, float32 (h, d)."""
        return self._vectors(self.data.held_out[:QUERIES])

    def batch(self, picked: Tensor) -> Tensor:
        """Vectors of a batch, float32 (n, d), with gradients into a trained backbone."""
        if self.trainable is None:
            assert self._fixed is not None  # noqa: S101 (for the type checker)
            return self._fixed[picked]
        return self.trainable.compute(self.data.train[picked.cpu().numpy()])

    def label_figures(self, scores: Tensor, picked: Tensor) -> dict[str, float]:
        """`label_quality` of held-out queries against training rows; empty without labels.

        Args:
            scores: float32 (m, n): larger is nearer.
            picked: int64 (n,): numbers of the training rows.
        """
        if self.data.held_out_labels is None:
            return {}
        labels = torch.from_numpy(self.data.held_out_labels[:QUERIES])
        return label_quality(scores.cpu(), labels, torch.from_numpy(self.data.labels)[picked.cpu()])

    def validate(self, score: Callable[[Tensor, Tensor], Tensor], metric: Metric) -> float:
        """Validation metric for early stopping, on held-out rows of its own.

        Args:
            score: Takes queries float32 (m, d) and rows (n, d), gives float32 (m, n): larger is nearer.
            metric: COSINE, IP or L2.

        Returns:
            The mean average precision by label; without labels the share of the true neighbours that is found.

        Raises:
            DataError: If too few rows are held out.
        """
        apart = self.data.held_out[QUERIES : 2 * QUERIES]
        if len(apart) < QUERIES:
            raise DataError(
                f"Stopping early needs {2 * QUERIES} held-out rows, and {self.data.total_rows:,} rows leave "
                f"{len(self.data.held_out)}; give {20 * QUERIES:,} rows or more, or leave patience out."
            )
        queries = self._vectors(apart)
        rows = self._vectors(self.data.train[:_VALIDATED]) if self._fixed is None else self._fixed[:_VALIDATED]
        scores = score(queries, rows)
        if self.data.held_out_labels is None:
            return share_found(exact_neighbours(queries, rows, metric), scores, _CHOSEN_BY)
        labels = torch.from_numpy(self.data.held_out_labels[QUERIES : 2 * QUERIES])
        return label_quality(scores.cpu(), labels, torch.from_numpy(self.data.labels[:_VALIDATED]))["mAP by label"]
