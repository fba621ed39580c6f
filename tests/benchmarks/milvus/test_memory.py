"""The benchmark of memory per row: its slopes, and what it counts of a process."""

import os

import numpy as np
import pytest

from benchmarks.gateway.usage import usage
from benchmarks.milvus import memory
from benchmarks.report import Report

CASE = memory.Case("a type", "FLAT", counts=(1_000, 3_000))


def shown(reading):
    report = Report("memory", [0], "make bench")
    memory._show(report, CASE, 384, reading, 30_000_000)
    (row,), (target,) = report.tables[memory.TABLE], report.targets
    return row, target


def test_what_does_not_grow_with_the_rows_is_left_out():
    # 30 MB that are always there, and 139 bytes a row, of which 100 are the index: 39 are the key
    resident = [30_000_000 + 139 * rows for rows in CASE.counts]
    index = [20_000 + 100 * rows for rows in CASE.counts]
    row, target = shown(memory.Reading(resident, [], index))
    assert (row["by the kernel"], row["by formula"], row["of it index"]) == (139, 139, 100)
    assert row["formula / kernel"] == pytest.approx(1)
    assert row["as started"] == ""
    assert row["MB"] == "0.1 and 0.4", "over those of an empty server"
    assert target["met"]


@pytest.mark.parametrize(("bytes_by_kernel", "met"), [(115, False), (125, True), (160, True), (170, False)])
def test_a_formula_may_be_fifteen_percent_off(bytes_by_kernel, met):
    resident = [bytes_by_kernel * rows for rows in CASE.counts]
    row, target = shown(memory.Reading(resident, [500 * rows for rows in CASE.counts], [100 * r for r in CASE.counts]))
    assert target["figure"] == pytest.approx(139 / bytes_by_kernel)
    assert target["met"] is met
    assert row["as started"] == 500


def test_a_process_without_go_is_counted_whole():
    held = np.ones(20_000_000, np.uint8)
    counted = memory._outside_go(os.getpid())
    assert counted == pytest.approx(usage(os.getpid()).anonymous, rel=0.1)
    assert counted > held.nbytes


def test_every_case_is_named_once_and_slopes_need_two_counts():
    assert len({case.name for case in memory.CASES}) == len(memory.CASES)
    assert all(few < many for few, many in (case.counts for case in (*memory.CASES, *memory.QUICK_CASES)))
