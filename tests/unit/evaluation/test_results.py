"""The results of an evaluation in a notebook."""

from __future__ import annotations

from xml.etree import ElementTree

from alula.evaluation.measure import Point
from alula.evaluation.recall import RecallEstimate
from alula.evaluation.results import Evaluation, Subject
from alula.index_types import RowCost

HOSTILE = "<script>alert('x')</script>"


def test_a_notebook_shows_a_table():
    points = [
        Point({"candidates": n}, RecallEstimate(r, r - 0.01, r + 0.01, 200), t, t, t, 1000 / t)
        for n, r, t in ((500, 0.95, 8.0), (50, 0.5, 2.0))
    ]
    subjects = [Subject(f"DRQ {HOSTILE}", RowCost({"drq sign": 32.0, "keys": 4.0}, {"kept vectors": 200.0}), points)]
    evaluation = Evaluation(HOSTILE, "COSINE", 10, 1200, 50, 200, "rows", "search", "Milvus 2.3.5", 0, subjects)
    table = ElementTree.fromstring(evaluation._repr_html_())
    caption, head, *rows = table
    assert caption.text == f"{HOSTILE}: 1,200 rows, 50 dimensions, COSINE; Milvus 2.3.5"
    assert [cell.text for cell in head][2] == "recall@10"
    # the fastest first
    assert [[cell.text for cell in row] for row in rows] == [
        [f"DRQ {HOSTILE}", "candidates 50", "0.500 (0.490-0.510)", "2.00", "500", "36", "200"],
        [f"DRQ {HOSTILE}", "candidates 500", "0.950 (0.940-0.960)", "8.00", "125", "36", "200"],
    ]
