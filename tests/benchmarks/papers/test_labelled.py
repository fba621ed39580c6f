"""The figures of the tables with labels against their definition, counted row by row."""

from __future__ import annotations

import numpy as np

from benchmarks.papers.labelled import Pictures, judge


def test_mean_average_precision_by_distance_over_several_chunks_of_queries() -> None:
    generator = np.random.default_rng(0)
    images = np.zeros((500, 28, 28, 1), np.uint8)
    labels, query_labels = generator.integers(4, size=80), generator.integers(4, size=500)
    rows = (generator.normal(size=(80, 6)) + labels[:, None]).astype(np.float32)
    queries = (generator.normal(size=(500, 6)) + query_labels[:, None]).astype(np.float32)
    pictures = Pictures((images, query_labels), (images, query_labels), (images[:80], labels))

    firsts, averages = [], []
    for query, label in zip(queries, query_labels, strict=True):
        right = labels[np.argsort(((rows - query) ** 2).sum(1))] == label
        firsts.append(right[0])
        averages.append(np.mean([right[: place + 1].mean() for place in np.flatnonzero(right)]))

    first, average = judge(pictures, queries, rows)
    assert abs(first - np.mean(firsts)) < 1e-6
    assert abs(average - np.mean(averages)) < 1e-5
    # rows of different lengths: the product ranks otherwise
    assert abs(judge(pictures, queries, rows, "IP")[1] - average) > 1e-3
