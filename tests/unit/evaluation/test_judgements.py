"""Judgements and measures, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from alula.errors import DataError
from alula.evaluation.judgements import Interval, read_qrels, scores


def write(tmp_path, text):
    path = tmp_path / "qrels.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq 1\td1\t2\nq 1\td2\t0\n\nq2\td1\t1\n",
        "q 1\td1\t2\nq 1\td2\t0\nq2\td1\t1",
        "q 1\t0\td1\t2\r\nq 1\t0\td2\t0\r\nq2\t0\td1\t1\r\n",
        "\ufeffquery-id\tcorpus-id\tscore\nq 1\td1\t2\nq 1\td2\t0\nq2\td1\t1\n",
    ],
)
def test_lines_of_beir_and_of_trec(tmp_path, text):
    assert read_qrels(write(tmp_path, text)) == {"q 1": {"d1": 2, "d2": 0}, "q2": {"d1": 1}}


def test_blanks_between_columns(tmp_path):
    assert read_qrels(write(tmp_path, "101 0 D7 1\n101   0 D8 -1\n")) == {"101": {"D7": 1, "D8": -1}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no judgements"),
        ("query-id\tcorpus-id\tscore\n", "no judgements"),
        ("q1\td1\t1\nq1\td2\tyes\n", "Line 2 of qrels.tsv"),
        ("q1\td1\n", "Line 1 of qrels.tsv"),
        ("q1\td1\t1\nq1\td2\t.5\n", "whole number"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_bad_files_are_a_sentence(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read_qrels(write(tmp_path, text))


@pytest.mark.parametrize("found", [3, 10, 60, 100])
def test_ndcg_is_that_of_scikit_learn(chance, found):
    rng = np.random.default_rng(chance.randrange(2**32))
    gains = rng.integers(0, 4, 150)
    order = rng.permutation(150)
    shown = np.full(150, -1000.0)
    shown[order[:found]] = -np.arange(found)
    relevance = {str(i): int(gains[i]) for i in range(150) if gains[i] or i % 2}
    ndcg, reciprocal, recall = scores([str(i) for i in order[:found]], relevance)
    kept = np.where(shown > -1000, gains, 0)
    ideal = ndcg_score([gains], [gains.astype(float)], k=10)
    assert ideal == pytest.approx(1)
    discounts = 1 / np.log2(np.arange(2, 12))
    expected = ndcg_score([gains], [shown], k=10) if found >= 10 else None
    by_hand = (kept[order[:10]] * discounts).sum() / (np.sort(gains)[::-1][:10] * discounts).sum()
    assert ndcg == pytest.approx(by_hand)
    assert expected is None or ndcg == pytest.approx(expected)
    ranks = [rank for rank, i in enumerate(order[:found], 1) if gains[i]]
    assert reciprocal == (1 / ranks[0] if ranks[0] <= 10 else 0)
    assert recall == len(ranks) / np.count_nonzero(gains)


def test_by_hand():
    assert scores(["a", "b", "c"], {"b": 1, "z": 0, "y": -1}) == (pytest.approx(1 / np.log2(3)), 1 / 2, 1)
    assert scores([], {"b": 1}) == (0, 0, 0)
    assert scores([*map(str, range(10)), "b"], {"b": 1}) == (0, 0, 1), "within 100, not within 10"
    assert scores([*map(str, range(100)), "b"], {"b": 1}) == (0, 0, 0)


def test_the_interval_is_about_that_of_the_normal_distribution(chance):
    values = np.random.default_rng(chance.randrange(2**32)).random(2000)
    found = Interval.of(values, seed=3)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == (
        pytest.approx(values.mean() - half, abs=half / 4),
        pytest.approx(values.mean() + half, abs=half / 4),
    )
    assert Interval.of(values, seed=3) == found
    assert str(Interval(0.51234, 0.4, 0.6)) == "0.512 (0.400-0.600)"


@pytest.mark.parametrize("values", [[0.5], [0.25, 0.25, 0.25]])
def test_without_variance_there_is_no_width(values):
    assert Interval.of(np.array(values), seed=0) == Interval(values[0], values[0], values[0])
