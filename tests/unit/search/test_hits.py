"""Results as lists, as text, and as tables in notebooks."""

from __future__ import annotations

import json
import pickle
from xml.etree import ElementTree

import numpy as np

from alula.search import Hit, Hits, RankedIds, Results
from alula.search.hits import MAX_CELL, MAX_ROWS, to_results

AWKWARD = "<b onclick='x()'>& \"quoted\"</b>"


def cells(html):
    caption, *rows = ElementTree.fromstring(html)
    return caption.text, [[cell.text for cell in row] for row in rows]


def test_fields_follow_the_rows_of_one_query_behind_another():
    ranked = [
        RankedIds([7, 3], np.float32([0.5, 0.25]), exact=True),
        RankedIds([], np.empty(0, np.float32), exact=False),
        RankedIds([9], np.float32([2.0]), exact=False),
    ]
    results = to_results(ranked, {"word": ["a", "b", "c"], "year": [1, 2, 3]})
    assert results == [
        [Hit(7, 0.5, True, {"word": "a", "year": 1}), Hit(3, 0.25, True, {"word": "b", "year": 2})],
        [],
        [Hit(9, 2.0, False, {"word": "c", "year": 3})],
    ]
    assert [[hit.fields for hit in hits] for hits in to_results(ranked, {})] == [[{}, {}], [], [{}]]


def test_results_are_lists():
    results = Results([Hits([Hit(1, 0.5, True)])])
    assert isinstance(results[0], list)
    assert json.dumps([[hit.id for hit in hits] for hits in results]) == "[[1]]"
    assert pickle.loads(pickle.dumps(results)) == results


def test_a_hit_in_words():
    assert repr(Hit("cat", 0.5, True, {"year": 7})) == "Hit(id='cat', score=0.5, exact=True, fields={'year': 7})"


def test_the_table_of_one_query():
    hits = Hits([Hit("cat", 0.98765, True, {"text": AWKWARD, "tags": ["é", 1], "none": None}), Hit(AWKWARD, 0.5, True)])
    assert cells(hits._repr_html_()) == (
        "2 hits",
        [
            ["#", "id", "score", "text", "tags", "none"],
            ["1", "cat", "0.9877", AWKWARD, '["é", 1]', None],
            ["2", AWKWARD, "0.5000", None, None, None],
        ],
    )


def test_the_table_of_several_queries():
    results = Results([Hits([Hit(1, 2.0, False)]), Hits(), Hits([Hit(2, 3.0, False)])])
    assert cells(results._repr_html_()) == (
        "2 hits of 3 queries",
        [["query", "#", "id", "estimate"], ["0", "1", "1", "2.0000"], ["2", "1", "2", "3.0000"]],
    )


def test_a_long_table_is_cut():
    hits = Hits([Hit(i, 1.0, True, {"text": "x" * 10_000}) for i in range(MAX_ROWS + 1)])
    caption, rows = cells(hits._repr_html_())
    assert caption == f"{MAX_ROWS + 1} hits, the first {MAX_ROWS}"
    assert len(rows) == MAX_ROWS + 1, "with the head"
    assert rows[1][-1] == "x" * MAX_CELL + "..."


def test_no_hits():
    assert cells(Results([Hits()])._repr_html_()) == ("0 hits", [["#", "id", "score"]])
