"""Batches: all rows in random order, or balanced by label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alula.errors import DataError, UsageError


class BalancedBatches:
    """Draws batches of random labels with at least 2 rows each.

    Labels with a single row are never drawn. If there are few labels, more rows of each fill the batch, of at least two
    labels. A row of several labels is drawn for any of them, and is in a batch once.

    Args:
        labels: int64 (n,): rows of one label belong together; for pairs, two rows have each label. Or bool (n, C):
            which labels a row has.
        size: Most rows in a batch, 4 at least.
        generator: Source of randomness.
        per_label: Rows of each label, at least 2; fewer if a label has fewer.

    Raises:
        UsageError: If ``size`` or ``per_label`` is too small.
        DataError: If no label has two rows.
    """

    def __init__(self, labels: Tensor, size: int, generator: torch.Generator, *, per_label: int = 4) -> None:
        if size < 4 or per_label < 2:
            raise UsageError(
                f"A batch of {size} rows with {per_label} of each label has no two labels with two rows each; "
                "take at least 4 rows, and 2 of each label."
            )
        self._several = labels.ndim == 2
        if self._several:
            named, self._rows = labels.T.nonzero(as_tuple=True)
        else:
            self._rows = labels.argsort(stable=True)
            named = labels[self._rows]
        counts = torch.unique_consecutive(named, return_counts=True)[1]
        starts = counts.cumsum(0) - counts
        self._starts, self._counts = starts[counts > 1], counts[counts > 1]
        if not len(self._counts):
            raise DataError(
                f"Each of the {len(labels):,} rows has a label of its own, so no two belong together and nothing can "
                "be learned from labels. Give rows that share labels, or train without labels."
            )
        self._size = size
        self._generator = generator
        self._most = min(max(per_label, size // len(self._counts)), size // 2)

    def draw(self) -> Tensor:
        """Draw distinct row numbers, int64 (m,), m <= size."""
        picked = torch.randperm(len(self._counts), generator=self._generator)[: self._size // 2]
        wanted = self._counts[picked].clamp_max(self._most)
        picked = picked[wanted.cumsum(0) <= self._size]
        wanted, counts = wanted[: len(picked)], self._counts[picked]
        # Floyd's sampling without replacement, for all labels at once: one of the first j + 1 rows, or the last of
        # them if that one was taken before; -1 where a label wants no more rows
        places = torch.full((len(picked), self._most), -1)
        for taken in range(int(wanted.max())):
            last = counts - wanted + taken
            place = (torch.rand(len(picked), generator=self._generator, dtype=torch.float64) * (last + 1)).long()
            repeated = (places[:, :taken] == place[:, None]).any(1)
            places[:, taken] = torch.where(wanted > taken, torch.where(repeated, last, place), -1)
        rows = self._rows[(self._starts[picked, None] + places)[places >= 0]]
        return torch.unique(rows) if self._several else rows


class ShuffledBatches:
    """Draws all rows once, in random order, and then all again.

    Args:
        rows: Number of rows.
        size: Rows in a batch; the last one of a pass may have fewer.
        generator: Source of randomness.
    """

    def __init__(self, rows: int, size: int, generator: torch.Generator) -> None:
        self._rows = rows
        self._size = size
        self._generator = generator
        self._left = torch.empty(0, dtype=torch.int64)

    def draw(self) -> Tensor:
        """Draw the row numbers of a batch: int64 (m,), m <= size."""
        if not len(self._left):
            self._left = torch.randperm(self._rows, generator=self._generator)
        picked, self._left = self._left[: self._size], self._left[self._size :]
        return picked

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"left": self._left}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """For a checkpoint."""
        self._left = state["left"]
