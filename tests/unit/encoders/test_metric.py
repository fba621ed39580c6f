"""The order of scores in each metric."""

from alula.encoders import METRICS, better_is_larger


def test_similarities_grow_and_distances_shrink():
    assert [better_is_larger(metric) for metric in METRICS] == [True, True, False]
    assert [better_is_larger(metric) for metric in ("BM25", "cosine", "HAMMING", "JACCARD")] == [
        True,
        True,
        False,
        False,
    ]
