"""How contenders are tuned, on one whose recall is known."""

from __future__ import annotations

import numpy as np

from benchmarks.speed.timing import Contender, K, ladder, milliseconds, recall, tune

TRUTH = np.tile(np.arange(K), (4, 1))


class Known(Contender):
    """Finds the first tenth of the effort of the ten, then what is not among them."""

    efforts = ladder(5, 200)

    def search(self, query, effort):
        return np.arange(K) + max(0, K - effort // 10)


def test_the_least_effort_that_reaches_a_recall():
    contender = Known("known")
    assert recall(contender, 50, range(4), TRUTH) == 0.5
    effort = tune(contender, 0.75, range(4), TRUTH)
    assert effort == min(e for e in Known.efforts if e >= 80)


def test_a_recall_that_is_not_reached():
    assert tune(Known("known"), 1.1, range(4), TRUTH) is None


def test_a_ladder_rises_from_the_least_to_about_the_most():
    efforts = ladder(20, 1_000)
    assert efforts[0] == 20
    assert 950 <= efforts[-1] <= 1_000
    assert efforts == sorted(set(efforts))


def test_each_contender_has_a_time():
    assert all(spent > 0 for spent in milliseconds([(Known("a"), 50), (Known("b"), 90)], range(4), 2))
