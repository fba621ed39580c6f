"""The page of a recommendation in a real browser, and what is on it."""

from __future__ import annotations

import pytest

from alula.evaluation.choice import Contender
from alula.evaluation.measure import Point
from alula.evaluation.prospects import Prospect
from alula.evaluation.recall import RecallEstimate
from alula.evaluation.recommend import Recommendation
from alula.evaluation.recommend_report import render_recommendation, write_recommendation
from alula.index_types import RowCost
from tests.fixtures.browser import check_page

HOSTILE = "<script>alert('x')</script>"


def recall(value):
    return RecallEstimate(value, max(0.0, value - 0.02), min(1.0, value + 0.02), 200)


def contender(name, memory, curve, option, **given):
    points = [Point({option: n}, recall(r), t, 2 * t, 3 * t, 1000 / t) for n, r, t in curve]
    chosen = next((point for point in points if point.recall.low >= 0.95), None)
    shown = chosen or points[-1]
    return Contender(name, points, chosen, shown.p50, RowCost(memory, given.pop("disk", {})), 12.5, **given)


@pytest.fixture(scope="module")
def found():
    """A recommendation among types of nearly the same memory, with users' data that means ill."""
    probes = ((2, 0.5, 1.4), (8, 0.7, 1.6), (32, 0.951, 1.9), (64, 0.981, 2.1), (256, 0.996, 2.4))
    return Recommendation(
        title=f"{HOSTILE}.npy",
        metric="COSINE",
        k=10,
        target=0.95,
        dim=384,
        rows=50_000_000,
        file_rows=117_659,
        sample_rows=20_000,
        queries=200,
        queries_from=f"200 other rows of {HOSTILE}",
        server="Milvus 2.3.5",
        seed=0,
        contenders=[
            contender("IVF_SQ8", {"vectors": 384, "ids": 8}, probes, "nprobe"),
            contender("FLAT", {"vectors": 1536}, ((1, 1.0, 4.4),), "none", notes=["compares every row"]),
            contender("IVF_FLAT", {"vectors": 1536, "ids": 8}, probes, "nprobe"),
            contender("HNSW", {"vectors": 1536, "graph": 136}, ((16, 0.975, 1.4), (64, 1.0, 1.6)), "ef"),
            contender(
                "DRQ (words-drq), vectors kept",
                {"drq sign": 32},
                ((100, 0.9, 12.0), (300, 0.99, 29.0)),
                "candidates",
                disk={"kept vectors": 1536},
                encoder=f"{HOSTILE}.onnx",
            ),
            contender("IVF_PQ", {"vectors": 96}, ((8, 0.5, 1.5), (64, 0.68, 2.0)), "nprobe"),
        ],
        taken="IVF_SQ8",
        reason=f"Take IVF_SQ8 and {HOSTILE}.",
        prospects=[
            Prospect("DRQ, vectors kept", RowCost({"drq sign": 80}), {30: recall(0.8), 200: recall(0.983)}, 200),
            Prospect("DRQ, vectors dropped", RowCost({"drq sign": 80})),
        ],
        refused={"DISKANN": f"Milvus does not like it: {HOSTILE}."},
    )


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "recommend.html"
    write_recommendation(found.as_json(), path)
    return path


def test_it_is_readable_without_a_network(view, page):
    check_page(view, page, texts=100)


def test_users_data_is_text(found):
    page = render_recommendation(found.as_json())
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_figures_are_in_it(found):
    page = render_recommendation(found.as_json())
    for words in (
        "<b>IVF_SQ8</b>",
        "nprobe 64",
        "0.981",
        "19.6&nbsp;GB",  # 392 bytes of 50 million rows
        "76.8&nbsp;GB",  # 1,536
        "candidates 200",
        "about</span> 0.983",
        "0.680 <span",
        "misses",
        "FLAT: compares every row.",
        "20,000 of 117,659",
        found.caveat,
    ):
        assert words in page
    settings = sum(len(one.points) for one in found.contenders) + 2
    assert page.count("<title>") == 1 + 2 * settings
