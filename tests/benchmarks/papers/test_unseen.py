"""Classes are split so that what is searched for was never trained on."""

from __future__ import annotations

import numpy as np

from benchmarks.papers.unseen import precisions, split_classes


def test_split_of_classes() -> None:
    # 10 classes of 6 rows, one of 3, and 40 rows of none
    labels = np.random.default_rng(1).permutation(np.repeat([*range(10), 10, -1], [*[6] * 10, 3, 40]))
    training, queries, rows = split_classes(labels, 5, 2, np.random.default_rng(0))
    assert len(np.unique(labels[training])) == 8
    assert len(training) == 8 * 6
    unseen, counts = np.unique(labels[queries], return_counts=True)
    assert counts.tolist() == [2, 2]
    assert not set(unseen) & {*labels[training], 10, -1}
    assert sorted([*queries, *rows]) == list(range(len(labels)))


def test_precisions_by_hand() -> None:
    row_labels = np.array([7, 7, 8, -1])
    found = np.full((2, 16), -1)
    found[0, :3] = [0, 2, 1]
    found[1, :2] = [3, 2]
    # row 3 has the last label too if -1 is taken for a position
    assert precisions(found, np.array([7, 8]), row_labels) == {1: 0.5, 4: 3 / 8, 16: 3 / 32}
