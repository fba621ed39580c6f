"""The settings that Alula stores with a collection.

They are in the native index's parameters, and in the description for servers that drop unknown parameters, so that
every client finds them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from alula.errors import AlulaError

# the second has `vector_type`, and is written only with it: earlier versions would read the field as FLOAT_VECTOR
FORMAT, FORMAT_WITH_TYPE = SETTINGS_FORMATS = ("1", "2")
SETTINGS_PREFIX = "alula."
# Not below SETTINGS_PREFIX: versions without default options must not take them for settings.
DEFAULTS_PREFIX = "alula_search."
DEFAULTS_INDEX = "alula_search_options"
MAX_DESCRIPTION = 1024  # bytes that Milvus 2.6.19 and later take
_MARK = "[alula "


def as_index_params(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings as flat parameters of the native index."""
    return {SETTINGS_PREFIX + name: value for name, value in settings.items()}


def with_settings(text: str, settings: Mapping[str, str]) -> str:
    """The user's description, followed by the settings."""
    return f"{text} {_MARK}{json.dumps(settings, sort_keys=True)}]".strip()


def read_settings(indexes: Iterable[Mapping[str, Any]], description: str) -> tuple[str, dict[str, str]]:
    """The user's description and the settings, which are empty without an index type.

    Args:
        indexes: The collection's indexes as pymilvus describes them.
        description: The collection's description.
    """
    text, described = _split(description)
    return text, next(filter(None, map(_of_index, indexes)), described)


def check_format(name: str, settings: Mapping[str, str]) -> None:
    """Raise an `AlulaError` for settings in a format that this version cannot read."""
    if settings.get("format") not in SETTINGS_FORMATS:
        raise AlulaError(
            f"The collection {name!r} has Alula's collection format {settings.get('format')}, and this version of "
            f"Alula reads the formats {' and '.join(SETTINGS_FORMATS)}; update Alula."
        )


def stored_defaults(indexes: Iterable[Mapping[str, Any]], properties: Mapping[str, Any]) -> dict[str, str]:
    """The default search options as `search_defaults.write_defaults` stored them.

    Args:
        indexes: The collection's indexes as pymilvus describes them.
        properties: The collection's properties.
    """
    kept = next((index for index in indexes if index.get("index_name") == DEFAULTS_INDEX), {})
    found = {**kept, **properties}
    # A property that a server cannot remove has an empty value.
    return {k.removeprefix(DEFAULTS_PREFIX): str(v) for k, v in found.items() if k.startswith(DEFAULTS_PREFIX) and v}


def _of_index(index: Mapping[str, Any]) -> dict[str, str]:
    """The settings in an index's parameters: flat (pymilvus) or in JSON (others)."""
    nested = index.get("params")
    if isinstance(nested, str):
        with contextlib.suppress(json.JSONDecodeError):
            nested = json.loads(nested)
    params = {**(nested if isinstance(nested, dict) else {}), **index}
    return {
        key.removeprefix(SETTINGS_PREFIX): str(value)
        for key, value in params.items()
        if key.startswith(SETTINGS_PREFIX)
    }


def _split(description: str) -> tuple[str, dict[str, str]]:
    text, found, tail = description.rpartition(_MARK)
    if found:
        with contextlib.suppress(ValueError, TypeError, RecursionError):  # no JSON object: the user's own text
            return text.strip(), dict(json.loads(tail.removesuffix("]")))
    return description, {}
