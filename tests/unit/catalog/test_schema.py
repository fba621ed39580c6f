"""Scalar fields: how a user names them, what a file's columns become, what a row must satisfy."""

from __future__ import annotations

import datetime
import json
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alula.catalog.schema import ScalarField, check_distinct, check_name, dynamic_values
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
    length = length if data_type == "VARCHAR" else 65535
    for field in (ScalarField(name, data_type, length), ScalarField(name, data_type, length, nullable=True)):
        assert ScalarField.parse(str(field)) == field
    if data_type != "JSON":
        field = ScalarField(name, "ARRAY", length, data_type, 7)
        assert ScalarField.parse(str(field)) == field


def test_an_array_has_a_type_and_a_capacity():
    tags = ScalarField.parse("tags:array<varchar(9)>(3):NULLABLE")
    assert tags == ScalarField("tags", "ARRAY", 9, "VARCHAR", 3, nullable=True)
    assert tags.spec.params == {"max_length": 9, "element_type": "VARCHAR", "max_capacity": 3, "nullable": True}
    assert ScalarField.parse("n:ARRAY<INT8>").max_capacity == 4096
    for capacity in (0, 4097):
        with pytest.raises(UsageError, match=f"has {capacity} elements; Milvus takes 1 to 4096"):
            ScalarField.parse(f"x:ARRAY<INT8>({capacity})")


@pytest.mark.parametrize(
    "text",
    [
        *["x", "x:", "x:TEXT", "x:INT64(8)", "x:VARCHAR()", "x:VARCHAR(-1)", "x:VARCHAR(a)", "x:a:b", "x:INT64:null"],
        *["x:ARRAY", "x:ARRAY(4)", "x:ARRAY<JSON>(4)", "x:ARRAY<ARRAY<INT8>>(4)", "x:ARRAY<INT8(4)>", "x:JSON(4)"],
    ],
)
def test_what_is_no_type(text):
    with pytest.raises(UsageError, match=r"is not NAME:TYPE with one of the types BOOL, INT8, .*VARCHAR\(n\), ARRAY<"):
        ScalarField.parse(text)


@pytest.mark.parametrize(
    ("text", "default"),
    [
        ("x:INT8:default=-128", -128),
        ("x:int64: default=9223372036854775807", 2**63 - 1),
        ("x:DOUBLE:default=0.1", 0.1),
        ("x:FLOAT:default=1e3", 1000.0),
        ("x:BOOL:default=true", True),
        ("x:BOOL:default=False", False),
        ("x:VARCHAR(8):default=", ""),
        ("x:VARCHAR(8):default=a:b = c", "a:b = c"),
        ("x:VARCHAR(8):default=äöüß", "äöüß"),
    ],
)
@pytest.mark.parametrize("nullable", [False, True])
def test_a_field_has_a_default(text, default, nullable):
    text = re.sub(": ?default", ":nullable:default", text) if nullable else text
    field = ScalarField.parse(text)
    assert (field.default, type(field.default), field.nullable) == (default, type(default), nullable)
    assert field.optional
    assert field.spec.params["default_value"] == default
    assert ScalarField.parse(str(field)) == field


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x:INT8:default=128", "x:INT8 cannot have the default '128', which is no INT8"),
        ("x:INT64:default=1.5", "'1.5', which is no INT64"),
        ("x:INT64:default=", "'', which is no INT64"),
        ("x:BOOL:default=maybe", "'maybe', which is no BOOL"),
        ("x:FLOAT:default=nan", "'nan', which is no FLOAT"),
        ("x:DOUBLE:default=1e999", "'1e999', which is no DOUBLE"),
        ("x:VARCHAR(7):default=äöüß", r"x:VARCHAR\(7\) cannot have a default of 8 bytes"),
        ("x:JSON:default={}", "x:JSON can have no default; Milvus has them for numbers, booleans and VARCHAR"),
        ("x:ARRAY<INT8>(4):default=[1]", "can have no default"),
        ("x:INT8:defaults=1", "':nullable' and ':default=VALUE' may follow"),
        ("x:INT8:default=1:nullable", "'1:nullable', which is no INT8"),
    ],
)
def test_what_is_no_default(text, says):
    with pytest.raises(UsageError, match=says):
        ScalarField.parse(text)


def test_what_can_be_written():
    fields = [ScalarField.parse(text) for text in ("x:INT8", "x:JSON", "x:ARRAY<VARCHAR(9)>(3)")]
    assert all(field.writable for field in fields)
    others = [ScalarField("x", "ARRAY", element_type="STRUCT"), ScalarField("x", "GEOMETRY")]
    others.append(ScalarField("x", "FLOAT_VECTOR"))
    assert not any(field.writable for field in others)


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
    "arrow_type",
    [pa.list_(pa.float32()), pa.list_(pa.float64()), pa.date32(), pa.timestamp("s"), pa.binary(), pa.null()],
    ids=str,
)
def test_columns_that_milvus_has_no_scalar_for(arrow_type):
    assert ScalarField.infer("x", arrow_type) is None


def test_lists_and_objects():
    assert ScalarField.infer("x", pa.list_(pa.int8())) == ScalarField("x", "ARRAY", element_type="INT8")
    assert ScalarField.infer("x", pa.large_list(pa.large_string())) == ScalarField("x", "ARRAY", element_type="VARCHAR")
    for nested in (pa.struct([("a", pa.int8())]), pa.map_(pa.string(), pa.int8()), pa.list_(pa.list_(pa.int8()))):
        assert ScalarField.infer("x", nested) == ScalarField("x", "JSON")


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


def test_documents_of_values_and_of_texts():
    about = ScalarField("x", "JSON")
    found, bad = about.convert(pa.array([{"a": 1, "b": None}, {"a": 2, "b": "é"}]))
    assert ([json.loads(one) for one in found], bad) == ([{"a": 1, "b": None}, {"a": 2, "b": "é"}], {})
    # a text is a document, as in Milvus's own files; its numbers stay as they are written
    texts = ['{"big": 9007199254740993, "exact": 0.10000000000000000001}', "[1]", "", "nonsense", '{"a": NaN}', None]
    found, bad = about.convert(pa.array(texts))
    assert found[:2] == [text.encode() for text in texts[:2]]
    assert set(bad) == {2, 3, 4, 5}
    assert "is no JSON (Expecting value) in 'x'" in bad[3]
    assert bad[4] == "NaN is no number of JSON in 'x'"
    assert bad[5] == "no value in 'x'"


def test_a_document_that_is_too_long():
    longest = json.dumps("a" * 65534)
    assert ScalarField("x", "JSON").convert(pa.array([longest])) == ([longest.encode()], {})
    _, bad = ScalarField("x", "JSON").convert(pa.array([longest, json.dumps("a" * 65535)]))
    assert bad == {1: "65537 bytes of JSON in 'x', and Milvus takes at most 65536"}


def test_arrays():
    tags = ScalarField("x", "ARRAY", 4, "VARCHAR", 2)
    column = pa.array([["a", "é"], [], ["a", "b", "c"], ["abcde"], ["a", None], None])
    found, bad = tags.convert(column)
    assert found[:2] == [["a", "é"], []]
    assert bad == {
        2: "3 elements in 'x', which takes at most 2",
        3: "5 bytes in 'x', whose elements take at most 4",
        4: "a missing element in 'x'",
        5: "no value in 'x'",
    }
    # of a CSV file
    assert tags.convert(pa.array(['["a"]', "[]"])) == ([["a"], []], {})
    found, bad = ScalarField("x", "ARRAY", element_type="INT8").convert(pa.array(["[1, 2.0]", "[300]", "7", "x"]))
    assert found[0] == [1, 2]
    assert bad[1] == "300 is no int8 in 'x', which is ARRAY"
    assert set(bad) == {1, 2, 3}
    found, bad = ScalarField("x", "ARRAY", element_type="INT8").convert(pa.array([[1.0], [1.5]]))
    assert (found[0], set(bad)) == ([1], {1})


@pytest.mark.parametrize(
    "text", ["x:INT64:nullable", "x:VARCHAR(9):nullable", "x:JSON:nullable", "x:ARRAY<INT8>:nullable"]
)
def test_a_nullable_field_takes_no_value(text):
    field = ScalarField.parse(text)
    value = pa.array([None, {"JSON": '{"a": 1}', "VARCHAR": "a", "ARRAY": [1]}.get(field.data_type, 1)], field.arrow)
    found, bad = field.convert(value)
    assert bad == {}
    assert found[0] is None
    assert found[1] is not None


def test_values_without_a_field_are_one_object():
    columns = {
        "a": pa.array([1, None, 3]),
        "$meta": pa.array(['{"b": 9007199254740993}', " {} ", "[1]"]),
        "text": pa.array(["x", '{"y": 1}', "z"]),
        "c": pa.array([0.5, float("inf"), None]),
    }
    found, bad = dynamic_values(columns, 3)
    assert json.loads(found[0]) == {"a": 1, "b": 9007199254740993, "text": "x", "c": 0.5}
    assert json.loads(found[1]) == {"text": '{"y": 1}'}
    assert bad == {
        1: "inf is no number of JSON in the column 'c'",
        2: "[1] in the column '$meta', which holds JSON objects",
    }
    assert dynamic_values({}, 2) == ([b"{}", b"{}"], {})
    _, bad = dynamic_values({"a": pa.array(["b" * 65536])}, 1)
    assert "bytes without a field, and Milvus takes at most 65536 as JSON" in bad[0]
