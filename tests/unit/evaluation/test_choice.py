"""The rule of a recommendation: least memory, unless little more of it saves much time."""

from __future__ import annotations

import pytest

from alula.evaluation.choice import Contender, choose, reason
from alula.evaluation.measure import Point
from alula.evaluation.recall import RecallEstimate
from alula.index_types import RowCost


def contender(name, memory, p50, recall=0.97, *, reaches=True, encoder="", p50_at_rows=None):
    found = RecallEstimate(recall, recall - 0.01, recall + 0.01, 200)
    point = Point({"ef": 32}, found, p50, p50, p50, 1000 / p50)
    # in two parts: the sum counts
    sizes = RowCost({"vectors": memory - 8, "ids": 8}, {"vectors": 1e6})
    chosen = point if reaches else None
    return Contender(name, [point], chosen, p50, sizes, 1.0, p50_at_rows=p50_at_rows, encoder=encoder)


@pytest.mark.parametrize(
    ("others", "taken"),
    [
        ([], "SQ8"),
        ([("HNSW", 1700, 0.1)], "SQ8"),  # far faster, and far more memory
        ([("NEAR", 600, 1.0)], "NEAR"),  # both ends of the rule: 1.5 times the memory, half of the time
        ([("NEAR", 601, 1.0)], "SQ8"),
        ([("NEAR", 600, 1.01)], "SQ8"),
        ([("NEAR", 500, 0.9), ("NEARER", 450, 0.8)], "NEARER"),
        ([("LESS", 399, 3.9)], "LESS"),
        ([("LESS", 300, 9.0)], "SQ8"),
        ([("SAME", 400, 1.9)], "SAME"),
    ],
)
def test_the_least_memory_unless_a_little_more_saves_half_of_the_time(others, taken):
    contenders = [contender("SQ8", 400, 2.0), *(contender(*other) for other in others)]
    assert choose(contenders).name == taken
    assert choose(contenders[::-1]).name == taken


def test_a_type_that_misses_the_target_is_never_taken():
    missed = contender("PQ", 100, 0.5, 0.7, reaches=False)
    assert choose([missed, contender("SQ8", 400, 2.0)]).name == "SQ8"
    assert choose([missed]) is None
    words = reason(None, [missed, contender("SIGNS", 50, 0.5, 0.6, reaches=False)], target=0.95, k=10)
    assert "No index type reached recall@10 0.95" in words
    assert "PQ, found 0.700" in words
    assert "ef 32" in words


def test_the_time_of_a_full_scan_is_that_of_all_rows():
    flat = contender("FLAT", 1536, 1.0, p50_at_rows=50.0)
    assert choose([flat, contender("HNSW", 1700, 2.0)]).name == "HNSW"
    assert choose([contender("FLAT", 1536, 1.0), contender("HNSW", 1700, 2.0)]).name == "FLAT"


@pytest.mark.parametrize(
    ("contenders", "words"),
    [
        (
            [contender("SQ8", 400, 2.0)],
            ["Take SQ8, Milvus's own", "0.970", "2.0 ms with ef 32", "400 bytes", "No other"],
        ),
        (
            [contender("DRQ", 80, 2.0, encoder="a.onnx"), contender("SQ8", 400, 1.9)],
            ["Take DRQ: ", "the least of those that reach 0.95."],
        ),
        (
            [contender("SQ8", 400, 3.0), contender("HNSW", 1600, 1.0)],
            ["Take SQ8", "HNSW, is 3.0 times as fast, for 4.0 times the memory"],
        ),
        (
            [contender("SQ8", 400, 6.0), contender("NEAR", 500, 1.5)],
            ["Take NEAR", "SQ8 takes the least (400), and for 1.2 times its memory NEAR is 4.0 times as fast"],
        ),
    ],
)
def test_the_reason_names_the_figures_that_decided(contenders, words):
    text = reason(choose(contenders), contenders, target=0.95, k=10)
    for word in words:
        assert word in text
    assert text.endswith(".")
