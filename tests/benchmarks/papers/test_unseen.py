"""Classes are split so that what is searched for was never trained on."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.characters import TRAINED_FONTS, UNSEEN_FONTS, Characters
from benchmarks.papers import unseen
from benchmarks.papers.unseen import Classes, class_means, load_pictures, precisions, split_classes


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


def test_neither_characters_nor_fonts_of_the_queries_were_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, every = len(TRAINED_FONTS), len(TRAINED_FONTS) + len(UNSEEN_FONTS)
    fonts, characters = (part.ravel() for part in np.meshgrid(np.arange(every), np.arange(20), indexing="ij"))
    # a picture that says what it is of
    pictures = np.stack([characters, fonts], axis=1).astype(np.uint8)[:, :, None, None]
    monkeypatch.setattr(unseen, "load_characters", lambda: Characters(pictures, characters, fonts))
    classes = load_pictures.__wrapped__(quick=False)
    (training, labels), (queries, asked), (rows, row_labels) = classes.training, classes.queries, classes.rows
    for part, names in ((training, labels), (queries, asked)):
        assert part[:, 0, 0, 0].tolist() == names.tolist()
    assert len(np.unique(labels)) == 16
    assert set(training[:, 1, 0, 0]) == set(range(seen))
    assert np.unique(asked, return_counts=True)[1].tolist() == [2] * 4
    assert not set(asked) & set(labels)
    assert set(rows[:, 1, 0, 0]) | set(queries[:, 1, 0, 0]) == set(range(seen, every))
    # each picture in an unseen font is a query or a row, and only unseen characters have a class there
    shown = {tuple(picture) for picture in np.concatenate([queries, rows])[:, :, 0, 0].tolist()}
    assert len(shown) == len(queries) + len(rows) == 20 * len(UNSEEN_FONTS)
    of_unseen = np.isin(rows[:, 0, 0, 0], asked)
    assert row_labels[of_unseen].tolist() == rows[of_unseen, 0, 0, 0].tolist()
    assert set(row_labels[~of_unseen]) == {-1}


def test_rows_are_judged_by_inner_product() -> None:
    generator = np.random.default_rng(0)
    labels, row_labels = generator.integers(5, size=30), generator.integers(5, size=100)
    queries, rows = (generator.normal(size=(n, 8)).astype(np.float32) for n in (30, 100))
    best = np.argsort(-(queries @ rows.T), axis=1)[:, :16]
    right = row_labels[best] == labels[:, None]
    classes = Classes((rows, row_labels), (queries, labels), (rows, row_labels))
    assert classes.judge(queries, rows) == {depth: right[:, :depth].mean() for depth in (1, 4, 16)}


def test_class_means_by_hand() -> None:
    vectors = np.array([[1, 2], [3, 4], [5, 0]], np.float32)
    assert class_means(vectors, np.array([7, 2, 7])).tolist() == [[3, 4], [3, 1]]
