"""Results as tables in notebooks."""

from __future__ import annotations

from xml.etree import ElementTree

from alula.notebook import html_table
from tests.unit.evaluation.test_judged_report import AWKWARD, evaluation
from tests.unit.evaluation.test_recommend_report import found

HOSTILE = "<script>alert('x')</script> & more"
recommendation = found


def test_cells_are_text():
    table = ElementTree.fromstring(html_table(HOSTILE, ["a", HOSTILE], [["1", HOSTILE], ["2", ""]]))
    caption, head, *rows = table
    assert caption.text == HOSTILE
    assert [cell.text for cell in head] == ["a", HOSTILE]
    assert [[cell.text for cell in row] for row in rows] == [["1", HOSTILE], ["2", None]]


def test_an_evaluation_with_judgements():
    caption, _, exact, ours, native = ElementTree.fromstring(evaluation()._repr_html_())
    assert caption.text == f"{AWKWARD}: 1,200 rows, 40 queries; Milvus 2.3.5"
    interval = "0.500 (0.400-0.600)"
    assert [cell.text for cell in exact] == [f"{AWKWARD}, exact", None, *[interval] * 3, None, None]
    assert [cell.text for cell in ours] == [AWKWARD, "candidates 100", *[interval] * 3, "1.23", "36"]
    assert native[0].text == "HNSW"


def test_a_recommendation(recommendation):
    caption, head, *rows = ElementTree.fromstring(recommendation._repr_html_())
    assert "recall 0.95 of 20,000 sample rows" in caption.text
    assert head[2].text == "recall@10"
    taken = [row[0].text for row in rows if "(take this)" in row[0].text]
    assert taken == [f"{recommendation.taken} (take this)"]
    assert [cell.text for cell in rows[0]][1:4] == ["nprobe 64", "0.981 (0.961-1.000)", "2.10"]
