"""The page of an evaluation with judgements."""

from __future__ import annotations

from html.parser import HTMLParser

from alula.evaluation.judged import JudgedEvaluation, System
from alula.evaluation.judged_report import render_judged_report
from alula.evaluation.judgements import MEASURES, Interval

AWKWARD = "<script>alert(\"1\")</script> & 'x'"


def evaluation():
    measures = dict.fromkeys(MEASURES, Interval(0.5, 0.4, 0.6))
    differences = dict.fromkeys(MEASURES, Interval(-0.01, -0.02, 0.01))
    systems = [
        System(f"{AWKWARD}, exact", {}, measures, {}, None, None, None, None),
        System(AWKWARD, {"candidates": 100}, measures, differences, 1.234, 2.5, 36.0, 384.0),
        System("HNSW", {"ef": 64}, measures, differences, 2.345, 4.5, 229.0, 0.0),
    ]
    return JudgedEvaluation(
        AWKWARD, 1200, 40, AWKWARD, "Milvus 2.3.5", 0, systems, [f"note {AWKWARD}"], {AWKWARD: "no"}
    )


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.scripts, self.links, self.words = 0, [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.links += [
            value for name, value in attrs if name in ("href", "src") and not str(value).startswith(("#", "data"))
        ]

    def handle_data(self, data):
        self.words.append(data)


def test_users_data_is_text_and_nothing_is_fetched():
    page = Tags(render_judged_report(evaluation().as_json()))
    assert page.scripts == 0
    assert page.links == []
    text = "".join(page.words)
    for words in (AWKWARD, "candidates 100", "-0.010", "1.23", "40 judged queries", "Not measured", "384", *MEASURES):
        assert words in text
