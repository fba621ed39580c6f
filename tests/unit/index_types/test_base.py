"""The parts that index types share: options, where vectors are kept, the base lowering."""

from __future__ import annotations

import numpy as np
import pytest

from alula.errors import UnsupportedError, UsageError
from alula.index_types import (
    Capabilities,
    Option,
    VectorField,
    check_options,
    choose_storage,
    vector_index,
    vector_spec,
)

NUMBER = Option("candidates", int, "How many.", 500)
LENGTH = Option("bits", int, "How long.", minimum=8)
CHOICE = Option("layout", str, "Which.", choices=("hamming", "adc"))
TEXT = Option("note", str, "Any.", "none")


@pytest.mark.parametrize("value", [1, 500, np.int64(7), np.uint8(255)])
def test_a_whole_number_is_taken(value):
    found = NUMBER.check(value)
    assert found == value
    assert type(found) is int


@pytest.mark.parametrize("value", [True, 1.0, "5", b"5", [5], np.float32(3)])
def test_what_is_no_whole_number(value):
    with pytest.raises(UsageError, match=r"candidates is .*, and a whole number is needed\.$"):
        NUMBER.check(value)


@pytest.mark.parametrize(("option", "value"), [(NUMBER, 0), (NUMBER, -3), (LENGTH, 7)])
def test_a_number_under_the_minimum(option, value):
    with pytest.raises(UsageError, match=rf"{option.name} is {value}, and must be at least {option.minimum}\."):
        option.check(value)


@pytest.mark.parametrize("value", ["HAMMING", "", "pq", 1])
def test_what_is_no_choice(value):
    with pytest.raises(UsageError, match=r"layout is .*; choose one of hamming, adc\."):
        CHOICE.check(value)


def test_what_is_not_given_has_the_default():
    assert [option.check(None) for option in (NUMBER, LENGTH, CHOICE, TEXT)] == [500, None, None, "none"]


def test_check_options_fills_in_every_option():
    assert check_options([NUMBER, LENGTH, CHOICE], {"bits": 16}, "DRQ") == {
        "candidates": 500,
        "bits": 16,
        "layout": None,
    }


def test_unknown_options_are_named_with_those_there_are():
    with pytest.raises(UsageError, match=r"DRQ has no option bit, candidate; it has: candidates, bits\."):
        check_options([NUMBER, LENGTH], {"candidate": 3, "bit": 1, "bits": 8}, "DRQ")
    with pytest.raises(UsageError, match="it has: none"):
        check_options([], {"bits": 8}, "X")


def server(*, several=True, arrays=True):
    supported = {"sparse_index": True, "several_vector_fields": several, "array_field": arrays}
    return Capabilities("Milvus 9", frozenset(name for name, works in supported.items() if works))


@pytest.mark.parametrize(
    ("keep", "several", "arrays", "storage"),
    [
        (False, True, True, "dropped"),
        (False, False, False, "dropped"),
        (True, True, True, "field"),
        (True, True, False, "field"),
        (True, False, True, "column"),
    ],
)
def test_where_vectors_are_kept(keep, several, arrays, storage):
    assert choose_storage(keep, server(several=several, arrays=arrays)) == storage


def test_a_server_with_no_place_for_vectors_says_what_to_do():
    with pytest.raises(UnsupportedError, match=r"Milvus 9 has one vector field.*\(keep_vectors=False\)"):
        choose_storage(True, server(several=False, arrays=False))


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_a_kept_vector_field_has_an_exact_index_of_the_users_metric(metric):
    field = VectorField("embedding", 50, metric, "field")
    spec, index = vector_spec(field), vector_index(field)
    assert (spec.name, spec.data_type, spec.bytes_per_row, spec.params) == (
        "embedding",
        "FLOAT_VECTOR",
        200,
        {"dim": 50, "mmap_enabled": True},
    )
    assert (index.field, index.index_type, index.metric, index.params) == ("embedding", "FLAT", metric, {})


def test_a_column_of_vectors_has_no_index():
    field = VectorField("embedding", 50, "L2", "column")
    spec = vector_spec(field)
    assert (spec.data_type, spec.params) == ("ARRAY", {"element_type": "FLOAT", "max_capacity": 50})
    assert vector_index(field) is None


def test_dropped_vectors_have_neither_field_nor_index():
    field = VectorField("embedding", 50, "L2", "dropped")
    assert vector_spec(field) is None
    assert vector_index(field) is None


def test_a_companion_is_named_after_its_field():
    assert VectorField("embedding", 50, "L2", "field").companion("drq_sign") == "embedding__drq_sign"
