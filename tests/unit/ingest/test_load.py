"""The report of a load in one line."""

from __future__ import annotations

from pathlib import Path

from alula.ingest.load import LoadReport
from alula.ingest.verify import Verification


def test_a_report_is_a_sentence():
    good = Verification(1200, 1200, 1200, 8, (), 8, 8)
    report = LoadReport(1200, 0, 1200, 0, None, 1.25, 1200, 9, False, (), {"reading": 0.5}, 0, good)
    assert repr(report) == "<LoadReport: 1,200 rows loaded in 1.2 s; the collection contains 1,200>"
    short = Verification(1100, 1200, 1200, 8, (), 8, 8)
    report = LoadReport(1200, 3, 1100, 2, Path("d.parquet"), 1.25, 1200, 9, False, (), {"reading": 0.5}, 0, short)
    assert repr(report) == (
        "<LoadReport: 1,200 rows loaded, 3 of them replaced, 2 rejected (d.parquet) in 1.2 s; the collection contains "
        "1,100; the collection contains 1,100 rows, and should contain 1,200>"
    )
