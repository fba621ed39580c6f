"""The report in a real browser: wide and narrow, light and dark; nothing asked of a network; everything readable."""

from __future__ import annotations

import re

import pytest

from alula.evaluation.report import render_report, write_report
from tests.fixtures.browser import check_page

HOSTILE = "<script>alert('x')</script>"

# Boxes of the labels beside the points, and of the points, in the plot that is shown.
LABELS = """
const svg = [...document.querySelectorAll('figure svg')].find(s => s.getClientRects().length);
const box = e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
const frame = box(svg);
return {frame, dots: [...svg.querySelectorAll('.dot')].map(d => [box(d), d.querySelector('title').textContent]),
  texts: [...svg.querySelectorAll('text')].map(t => [box(t), t.textContent.trim()])};
"""


def point(recall, p50, **settings):
    interval = {"value": recall, "low": max(0, recall - 0.02), "high": min(1, recall + 0.02), "queries": 200}
    speed = {"p50": p50, "p95": 2 * p50, "p99": 3 * p50, "qps": 1000 / p50, "clients": 4, "qps_clients": 2500 / p50}
    return {"settings": settings, "recall": interval, **speed}


def subject(name, points, memory, disk=(), encoder="", notes=()):
    sizes = {"memory": dict(memory), "disk": dict(disk), "note": ""}
    return {"name": name, "sizes": sizes, "points": points, "encoder": encoder, "build": {}, "load_seconds": 3.2} | {
        "notes": notes
    }


def neighbours(*hits):
    return [
        {"key": f"row {i} {HOSTILE}", "hit": hit, "columns": {"id": f"name {i}", "word": HOSTILE}}
        for i, hit in enumerate(hits)
    ]


@pytest.fixture(scope="module")
def evaluation():
    """What a large evaluation gives, with points close together and users' data that means ill."""
    drq = [point(r, t, candidates=c) for c, r, t in ((11, 0.62, 3.1), (100, 0.93, 3.2), (500, 0.99, 4.6), (2000, 1, 9))]
    drq += [
        point(r, 4.4, candidates=1000, bits=b, rerank=0) for b, r in ((16, 0.2), (32, 0.31), (64, 0.5), (128, 0.76))
    ]
    hnsw = [point(r, t, ef=e) for e, r, t in ((16, 0.8, 2.4), (64, 0.93, 2.5), (128, 0.97, 2.6), (512, 0.995, 3.9))]
    ivf = [point(r, t, nprobe=n) for n, r, t in ((8, 0.7, 3.0), (32, 0.92, 3.3), (128, 0.985, 5.1), (256, 0.99, 7.9))]
    sample = {"query": f"a query {HOSTILE}" + "long" * 90, "columns": {}, "by": f"DRQ {HOSTILE}"}
    sample |= {"true": neighbours(True, False, True), "found": neighbours(True, True, False)}
    kept = [("kept vectors", 200)]
    codes = [("drq sign", 32), ("drq code", 16), ("drq norm", 32)]
    return {
        "format": 1,
        "title": f"Index types on {HOSTILE}.npy",
        "metric": "COSINE",
        "k": 10,
        "rows": 399_800,
        "dim": 50,
        "queries": 200,
        "queries_from": f"200 rows of {HOSTILE}",
        "truth_from": "scoring every row",
        "server": "Milvus 2.3.5",
        "seed": 0,
        "subjects": [
            subject("DRQ hamming (words-drq)", drq, codes, kept, "words-drq.onnx", ["kept vectors are mapped"]),
            subject("DRQ adc (words-drq)", [{**p, "p50": 3 * p["p50"]} for p in drq], [("drq onehot", 172)], kept),
            subject("HNSW", hnsw, [("vectors", 200), ("graph", 136)]),
            subject("IVF_SQ8", ivf, [("vectors", 50), ("ids", 8), ("centroids", 1)]),
        ],
        "refused": {"DISKANN": f"Milvus does not like it: {HOSTILE}."},
        "samples": [sample],
        "date": "2026-11-22T11:13:31+00:00",
        "machine": "2 cores (a processor with a long name), 24 GiB memory, Python 3.11.7",
        "versions": {"alula": "0.1.0", "numpy": "2.4.6"},
    }


@pytest.fixture(scope="module")
def page(evaluation, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(evaluation, path)
    return path


def test_it_is_readable_without_a_network(view, page):
    check_page(view, page, texts=150)


def test_the_best_points_have_a_label_beside_them(view, evaluation):
    drawn = view.execute_script(LABELS)
    points = [p for s in evaluation["subjects"] for p in s["points"]]
    assert len(drawn["dots"]) == len(points)
    assert all("recall" in title for _, title in drawn["dots"])
    best = numbers_of_the_best(evaluation)
    assert 4 <= len(best) < len(points)
    # ticks of the axis may be the same numbers: labels beside their points are meant
    dots = {int(title.split(". ", 1)[0]): box for box, title in drawn["dots"]}
    labels = {
        number: box
        for box, text in drawn["texts"]
        if re.fullmatch(r"\d+", text)
        and (number := int(text)) in dots
        and max(abs(middle(box)[i] - middle(dots[number])[i]) for i in (0, 1)) < 20
    }
    assert set(labels) == best
    left, top, right, bottom = drawn["frame"]
    for box in labels.values():
        assert left <= box[0] < box[2] <= right
        assert top <= box[1] < box[3] <= bottom


def numbers_of_the_best(evaluation):
    """The numbers of the points that no other point of the same index beats in recall and latency."""
    best, number = set(), 0
    for measured in evaluation["subjects"]:
        recall = 0.0
        for p in sorted(measured["points"], key=lambda p: (p["p50"], -p["recall"]["value"])):
            number += 1
            if p["recall"]["value"] > recall:
                recall = p["recall"]["value"]
                best.add(number)
    return best


def middle(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def test_users_data_is_text(evaluation):
    page = render_report(evaluation)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page


def test_figures_are_in_it(evaluation):
    page = render_report(evaluation)
    for words in (
        "candidates 1000, bits 64, rerank 0",
        "recall@10",
        "median latency, ms",
        "Milvus 2.3.5",
        "0.985",
        "name 2",
    ):
        assert words in page
    assert page.count("<title>") == 1 + 2 * (24 + 8)
    without_codes = {**evaluation, "subjects": evaluation["subjects"][2:]}
    assert "code length, bits" not in render_report(without_codes)
