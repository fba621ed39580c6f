"""The report in a real browser: wide and narrow, light and dark; nothing asked of a network; everything readable."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from alula.evaluation.report import render_report, write_report

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
DRIVER = shutil.which("chromedriver") or ""
SCREENSHOTS = Path("build/report")
HOSTILE = "<script>alert('x')</script>"
VIEWS = [(width, scheme) for width in (1200, 390) for scheme in ("light", "dark")]

# The contrast of each text with what is behind it (WCAG 2.2, 1.4.3), from the colours that the browser computed.
CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgb = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data]; };
const light = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255;
  return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const found = [];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !element.getClientRects().length || element.tagName === 'title') continue;
  const style = getComputedStyle(element);
  const ink = rgb(element instanceof SVGElement ? style.fill : style.color);
  let behind = element, paper = [0, 0, 0, 0];
  while (behind && paper[3] === 0) {
    paper = rgb(getComputedStyle(behind).backgroundColor);
    behind = behind.parentElement;
  }
  const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), element.textContent.trim().slice(0, 40), parseFloat(style.fontSize)]);
}
return found;
"""
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
def browser():
    missing = (
        "" if CHROMIUM and DRIVER else "the report is checked in Chromium: apt-get install chromium chromium-driver"
    )
    if missing and os.environ.get("CI"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # containers have no sandbox and little shared memory
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(evaluation, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(evaluation, path)
    return path


@pytest.fixture(params=VIEWS, ids=[f"{width}-{scheme}" for width, scheme in VIEWS])
def view(request, browser, page):
    """The page at a width and in a colour scheme; a screenshot of it is kept."""
    width, scheme = request.param
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme_feature]})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(page.as_uri())
    height = browser.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    (SCREENSHOTS / f"{width}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))
    return browser


def test_it_is_readable_without_a_network(view, page):
    assert view.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in view.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    inside = view.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert inside[0] <= inside[1], "the page is wider than the window"
    contrasts = view.execute_script(CONTRAST)
    assert len(contrasts) > 150
    assert [entry for entry in contrasts if entry[0] < 4.5] == []
    assert [entry for entry in contrasts if entry[2] < 10] == []


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
