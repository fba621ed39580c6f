"""Scalar fields: how a user names them, what a file's columns become, what a row must satisfy."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.catalog.schema import ScalarField, check_distinct, check_name
from alula.errors import UsageError
from alula.milvus.wire.types import ARROW_TYPES


@pytest.mark.parametrize("data_type", sorted(ARROW_TYPES))
def test_every_type_can_be_named(data_type):
    assert ScalarField.parse(f"x:{data_type}") == ScalarField("x", data_type)
    assert ScalarField.parse(f"x:{data_type.lower()}") == ScalarField("x", data_type)


def test_a_varchar_has_a_length():
    assert ScalarField.parse("word:VARCHAR(64)") == ScalarField("word", "VARCHAR", 64)
    assert ScalarField.parse("word:VARCHAR").max_length == 65535
    assert ScalarField.parse("word: varchar(1) ").max_length == 1


@given(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,30}", fullmatch=True),
    st.sampled_from(sorted(ARROW_TYPES)),
    st.integers(1, 65535),
)
def test_a_field_is_read_as_it_is_written(name, data_type, length):
    field = ScalarField(name, data_type, length if data_type == "VARCHAR" else 65535)
    assert ScalarField.parse(str(field)) == field


@pytest.mark.parametrize(
    "text", ["x", "x:", "x:TEXT", "x:INT64(8)", "x:VARCHAR()", "x:VARCHAR(-1)", "x:VARCHAR(a)", "x:a:b"]
)
def test_what_is_no_type(text):
    with pytest.raises(UsageError, match=r"is not NAME:TYPE with one of the types BOOL, INT8, .*VARCHAR\(n\)\."):
        ScalarField.parse(text)


@pytest.mark.parametrize("length", [0, 65536, 10**30])
def test_a_length_that_milvus_does_not_take(length):
    with pytest.raises(UsageError, match=rf"VARCHAR\({length}\) is not possible .*1 to 65535 bytes"):
        ScalarField.parse(f"x:VARCHAR({length})")


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "a.b", "ä", "$meta", "a" * 256, "a\n"])
def test_what_is_no_name(name):
    with pytest.raises(UsageError, match="cannot be a field name: use letters, digits and underscores"):
        ScalarField.parse(f"{name}:INT64")
    with pytest.raises(UsageError, match="cannot be a collection name"):
        check_name(name, "collection")


@pytest.mark.parametrize("name", ["a", "_", "A1_b", "a" * 255])
def test_a_name(name):
    check_name(name, "field")


def test_names_are_distinct():
    check_distinct(["a", "b"])
    with pytest.raises(UsageError, match="'a' is named twice"):
        check_distinct(["a", "b", "a"])


@pytest.mark.parametrize(
    ("arrow_type", "data_type"),
    [
        (pa.bool_(), "BOOL"),
        (pa.int8(), "INT8"),
        (pa.int32(), "INT32"),
        (pa.int64(), "INT64"),
        (pa.uint8(), "INT64"),
        (pa.uint64(), "INT64"),
        (pa.float32(), "FLOAT"),
        (pa.float64(), "DOUBLE"),
        (pa.string(), "VARCHAR"),
        (pa.large_string(), "VARCHAR"),
        (pa.dictionary(pa.int32(), pa.string()), "VARCHAR"),
    ],
    ids=str,
)
def test_the_field_for_a_column(arrow_type, data_type):
    assert ScalarField.infer("x", arrow_type) == ScalarField("x", data_type)


@pytest.mark.parametrize(
    "arrow_type", [pa.list_(pa.int8()), pa.date32(), pa.timestamp("s"), pa.binary(), pa.null()], ids=str
)
def test_columns_that_milvus_has_no_scalar_for(arrow_type):
    assert ScalarField.infer("x", arrow_type) is None


def test_a_dictionary_has_the_type_of_its_values():
    assert ScalarField.infer("x", pa.dictionary(pa.int8(), pa.int64())).data_type == "INT64"
    assert ScalarField.infer("x", pa.dictionary(pa.int8(), pa.large_string())).data_type == "VARCHAR"
    assert ScalarField.infer("x", pa.dictionary(pa.int8(), pa.binary())) is None
    values, bad = ScalarField("x", "INT64").convert(pa.array([7, 8, 7]).dictionary_encode())
    assert (list(values), bad) == ([7, 8, 7], {})


def test_a_column_whose_name_milvus_does_not_take():
    with pytest.raises(UsageError, match="cannot be a field name"):
        ScalarField.infer("my column", pa.int64())


@pytest.mark.parametrize(
    ("data_type", "column", "values"),
    [
        ("INT64", pa.array([1, 2], pa.int8()), [1, 2]),
        ("INT8", pa.array([-128, 127], pa.int64()), [-128, 127]),
        ("INT64", pa.array([2**63 - 1], pa.uint64()), [2**63 - 1]),
        ("FLOAT", pa.array([0.5, 2.0], pa.float64()), [0.5, 2.0]),
        ("DOUBLE", pa.array([1, 2]), [1.0, 2.0]),
        ("BOOL", pa.array([True, False]), [True, False]),
        ("VARCHAR", pa.array(["a", ""]), ["a", ""]),
        ("VARCHAR", pa.array(["a"], pa.large_string()), ["a"]),
        ("VARCHAR", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        ("VARCHAR", pa.array([7]), ["7"]),
    ],
)
def test_values_are_converted(data_type, column, values):
    found, bad = ScalarField("x", data_type).convert(column)
    assert bad == {}
    assert (found.tolist() if isinstance(found, np.ndarray) else found) == values


@pytest.mark.parametrize(
    ("data_type", "column"),
    [
        ("INT8", pa.array([1, 128])),
        ("INT64", pa.array([2**63], pa.uint64())),
        ("INT32", pa.array([1.5])),
        ("INT64", pa.array(["abc"])),
        ("INT64", pa.array([[1]])),
        ("DOUBLE", pa.array(["abc"])),
        ("VARCHAR", pa.array([b"\xff\xfe"])),
        ("VARCHAR", pa.array([[1, 2]])),
        ("INT64", pa.array([datetime.date(2020, 1, 1)])),
    ],
    ids=str,
)
def test_values_that_do_not_fit(data_type, column):
    values, bad = ScalarField("x", data_type).convert(column)
    assert len(values) == len(column)  # a placeholder stands for them
    last = len(column) - 1
    assert set(bad) == {last}
    assert f"in 'x', which is {data_type}" in bad[last]


def test_only_the_values_that_do_not_fit_are_bad():
    column = pa.array(["1", "two", None, "4", "5.5"])
    values, bad = ScalarField("x", "INT32").convert(column)
    assert [values[0], values[3]] == [1, 4]
    assert bad == {
        1: "'two' in 'x', which is INT32",
        2: "no value in 'x'",
        4: "'5.5' in 'x', which is INT32",
    }


def test_missing_values_are_bad_in_slices_too():
    assert ScalarField("x", "INT64").convert(pa.array([None, 2, None])[1:])[1] == {1: "no value in 'x'"}


@pytest.mark.parametrize("text", ["abcdefgh", "äöüß", "漢字a", "🪁🪁", "é" * 4])
def test_a_varchar_counts_bytes(text):
    size = len(text.encode())
    assert ScalarField("x", "VARCHAR", size).convert(pa.array(["", text])) == (["", text], {})
    _, bad = ScalarField("x", "VARCHAR", size - 1).convert(pa.array(["", text]))
    assert bad == {1: f"{size} bytes in 'x', which takes at most {size - 1}"}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), min_size=1), st.integers(1, 40))
def test_a_text_is_bad_exactly_when_its_bytes_are_too_many(texts, length):
    values, bad = ScalarField("x", "VARCHAR", length).convert(pa.array(texts))
    assert values == texts
    assert set(bad) == {i for i, text in enumerate(texts) if len(text.encode()) > length}
