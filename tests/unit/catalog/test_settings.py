"""Settings are found wherever a client or server keeps them."""

from __future__ import annotations

import json

from alula.catalog.settings import SETTINGS_FORMATS, as_index_params, read_settings, with_settings

SETTINGS = {"type": "DRQ", "format": SETTINGS_FORMATS[0]}


def test_flat_parameters_are_read():
    assert read_settings([{"nlist": 5}, as_index_params(SETTINGS)], "a text") == ("a text", SETTINGS)


def test_parameters_inside_json_are_read_as_other_clients_write_them():
    index = {"params": json.dumps({**as_index_params(SETTINGS), "nlist": 5}), "index_type": "BIN_FLAT"}
    assert read_settings([index], "") == ("", SETTINGS)


def test_parameters_that_are_not_json_are_passed_over():
    assert read_settings([{"params": "not json", "alula.type": "DRQ"}], "") == ("", {"type": "DRQ"})


def test_the_description_is_the_fallback():
    assert read_settings([{}], with_settings("of [1900]", SETTINGS)) == ("of [1900]", SETTINGS)
    assert read_settings([], with_settings("", SETTINGS)) == ("", SETTINGS)


def test_other_descriptions_are_left_alone():
    broken = ("see [alula docs]", "[alula {broken]", "[alula 5]", '[alula "ab"]', "[alula " + "[" * 100_000)
    for text in ("", "a text", *broken):
        assert read_settings([{}], text) == (text, {})
