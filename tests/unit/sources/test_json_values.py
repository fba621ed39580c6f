"""JSON documents: what is read is written again as it was, and what JSON cannot say is refused."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.sources.json_values import DOCUMENT, json_text, parsed_documents, read_json, read_members, value_documents

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_values_are_read_as_they_were_written(value):
    assert json.loads(json_text(value)) == value
    # through Alula's own reader, too
    assert json.loads(json_text(read_json(json.dumps(value)))) == value


@pytest.mark.parametrize(
    "number", ["9007199254740993", "0.10000000000000000001", "1e400", "-0", "1E5", "123456789" * 9]
)
def test_numbers_stay_as_they_are_written(number):
    assert json_text(read_json(f'{{"a": [{number}]}}')) == f'{{"a": [{number}]}}'


def test_values_of_python_and_numpy():
    moment = datetime.datetime(2026, 11, 29, 12, 30, tzinfo=datetime.timezone.utc)
    found = json.loads(
        json_text(
            {
                "whole": np.int64(2**53 + 1),
                "half": np.float32(0.5),
                "vector": np.arange(3),
                "pair": (1, True),
                "exact": Decimal("0.1"),
                "day": moment.date(),
                "moment": moment,
            }
        )
    )
    assert found == {
        "whole": 2**53 + 1,
        "half": 0.5,
        "vector": [0, 1, 2],
        "pair": [1, True],
        "exact": 0.1,
        "day": "2026-11-29",
        "moment": "2026-11-29T12:30:00+00:00",
    }


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "nan is no number of JSON"),
        ({"a": [float("inf")]}, "inf is no number"),
        (Decimal("NaN"), "has no form in JSON"),
        (b"bytes", "b'bytes' has no form in JSON"),
        ({1: 2}, "the key 1 is no string"),
        (object, "has no form in JSON"),
    ],
)
def test_values_without_a_form_in_json(value, reason):
    with pytest.raises(ValueError, match=reason):
        json_text(value)


@given(st.dictionaries(TEXTS, VALUES, max_size=5), st.sets(TEXTS, max_size=3), st.integers(0, 2))
def test_members_of_an_object(members, names, indent):
    names |= set(list(members)[::2])
    found = read_members(json.dumps(members, indent=indent or None).encode(), names)
    assert json.loads(json_text(found)) == {name: value for name, value in members.items() if name in names}


def test_an_object_around_which_is_space():
    assert read_members(b' {\r\n "a" :\t1 , "b":[2], "a": 3 } \n', {"a"}) == {"a": "3"}
    assert read_members(b" { } ", {"a"}) == {}


WRONG = [
    b"[1]",
    b"1",
    b"null",
    b'"a"',
    b"{",
    b"\xff",
    b"",
    b"{}{}",
    b"{} 1",
    b"{1: 2}",
    b'{"a" 1}',
    b'{"a": }',
    b'{"a": 1,}',
]
WRONG += [b'{"a": 1 "b": 2}', b'{"a": NaN}', b'{"b": Infinity}', b'{"a": 01}', b'{"a": 1]', b"{,}", b'{"a": "\n"}']


@pytest.mark.parametrize("line", WRONG)
def test_lines_that_are_no_object(line):
    with pytest.raises(ValueError, match=r"\S"):
        read_members(line, {"a"})


def test_a_column_of_values():
    column = pa.array([{"a": 1}, None, {"a": None}])
    assert value_documents(column) == ([b'{"a": 1}', None, b'{"a": null}'], {})
    assert value_documents(pa.array(['{"a": 1}'])) == ([b'"{\\"a\\": 1}"'], {})
    pairs = pa.array([[("a", 1), ("b", 2)], None], pa.map_(pa.string(), pa.int8()))
    assert value_documents(pairs) == ([b'{"a": 1, "b": 2}', None], {})
    assert value_documents(pa.array([b'{"a": 01}', b"[]"], DOCUMENT))[0] == [None, b"[]"]
    assert value_documents(pa.array([b"a"], pa.binary())) == ([None], {0: "b'a' has no form in JSON"})


def test_a_column_of_documents():
    given = ['{"a":  1}', "nonsense", None, "[" * 100_000]
    found, bad = parsed_documents(pa.array(given))
    assert found == [b'{"a":  1}', None, None, None]
    assert bad == {1: "'nonsense' is no JSON (Expecting value)", 3: "JSON that is nested too deeply"}
    assert parsed_documents(pa.array(["[1]", "[1]"]).dictionary_encode()) == ([b"[1]", b"[1]"], {})
    assert parsed_documents(pa.array([b"[1]", b"\xff"], pa.binary()))[0] == [b"[1]", None]
    assert parsed_documents(pa.array([[1, 2]])) == ([b"[1, 2]"], {})
