"""Rows with a key of an earlier row are found exactly, on disk as in memory."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alula.ingest.duplicates import duplicate_rows


def brute_force(keys):
    seen, found = set(), []
    for row, key in enumerate(keys):
        if key is not None and key in seen:
            found.append(row)
        seen.add(key)
    return found


def chunks(keys, arrow_type, size):
    return (pa.array(keys[i : i + size], arrow_type) for i in range(0, len(keys), size))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(0, 20))), st.integers(1, 7))
def test_integers(tmp_path_factory, keys, size):
    folder = tmp_path_factory.getbasetemp()
    assert duplicate_rows(chunks(keys, pa.int64(), size), folder, most=10**6) == brute_force(keys)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=2))), st.integers(1, 7))
def test_strings(tmp_path_factory, keys, size):
    folder = tmp_path_factory.getbasetemp()
    assert duplicate_rows(chunks(keys, pa.string(), size), folder, most=10**6) == brute_force(keys)


@pytest.mark.parametrize("arrow_type", [pa.int64(), pa.string()])
def test_many_keys_leave_nothing_behind(tmp_path, arrow_type):
    keys = [i * 7919 % 100_003 for i in range(100_500)]  # a permutation, and 497 repeated
    keys = list(map(str, keys)) if arrow_type == pa.string() else keys
    told = []
    found = duplicate_rows(chunks(keys, arrow_type, 8192), tmp_path, most=10**6, progress=told.append)
    assert found == brute_force(keys) == list(range(100_003, 100_500))
    assert told[-1] == 100_500
    assert list(tmp_path.iterdir()) == []


def test_it_stops_behind_enough(tmp_path):
    assert len(duplicate_rows([pa.array([1] * 1000)], tmp_path, most=5)) == 6
