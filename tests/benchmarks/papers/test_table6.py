"""Every target of table 6 can fail, and characters are described by their mean pictures."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.papers import table6
from benchmarks.papers.sparse_rows import Cost
from benchmarks.papers.table6 import LEVELS, ONCE, RELU_FLOPS, WIDE, Key, Point
from benchmarks.papers.unseen import Classes
from benchmarks.report import Report


def points(ours: float, theirs: float) -> dict[Key, list[Point]]:
    """Recall of the FLOPs regulariser and of DRQ, and of what they are held against."""

    def point(method: str, cost: Cost | None = None) -> list[Point]:
        return [Point({1: ours if method in (RELU_FLOPS, ONCE) else theirs}, 64, 1, cost)]

    every = {key: point(key[0], Cost(options.get("flops", 1), 16, 1)) for key, options in table6.SPARSE.items()}
    every |= {
        (method, f"{8 * level} bits"): point(method) for method in (ONCE, table6.PAPER, "OPQ") for level in LEVELS
    }
    return every | {("PQ", f"{8 * WIDE} bits"): point("PQ"), (table6.AS_LONG, f"{table6.DIM} numbers"): point("dense")}


@pytest.mark.parametrize("quick", [False, True])
def test_targets_are_met_ahead_and_missed_behind(quick: bool) -> None:
    ahead, behind = Report("ahead", [0], ""), Report("behind", [0], "")
    table6._targets(ahead, "cnn", points(0.9, 0.3), quick)
    table6._targets(behind, "cnn", points(0.3, 0.9), quick)
    assert len(ahead.targets) == 3 + 2 * len(LEVELS)
    assert all(entry["met"] and entry["figure"] == pytest.approx(0.6) for entry in ahead.targets)
    assert not any(entry["met"] for entry in behind.targets)


def test_a_character_is_described_by_its_mean_picture() -> None:
    pictures = np.zeros((4, 16, 16, 1), np.uint8)
    pictures[:2, :2, :2] = 100  # the first of 8 x 8 blocks
    pictures[2:, 14:, 14:] = [[[4], [8]], [[0], [0]]]  # the last, 3 in the mean
    labels = np.array([5, 5, 9, 9])
    found = table6._label_vectors(Classes((pictures, labels), (pictures, labels), (pictures, labels)))
    expected = np.zeros((2, 64))
    expected[:, 0], expected[:, -1] = (50, -50), (-1.5, 1.5)
    np.testing.assert_allclose(found, expected)


def test_pictures_are_moved_by_up_to_two_pixels() -> None:
    pictures = np.zeros((400, 9, 8, 1), np.uint8)
    pictures[:, 4, 1] = 7
    found = table6.moved(pictures, np.random.default_rng(0))
    assert found.shape == pictures.shape
    places = {tuple(np.argwhere(picture[:, :, 0] == 7).ravel()) for picture in found}
    # () is a picture that lost it at the left
    assert places == {(4 + down, 1 + right) for down in range(-2, 3) for right in range(-1, 3)} | {()}
