"""The settings that Alula stores with a collection: in the native index's parameters and in the description.

Every client finds them in one of the two: some servers drop unknown index parameters, others cut descriptions.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from alula.errors import AlulaError

SETTINGS_FORMAT = "1"
SETTINGS_PREFIX = "alula."
# Not below SETTINGS_PREFIX: versions without default options must not take them for settings.
DEFAULTS_PREFIX = "alula_search."
DEFAULTS_INDEX = "alula_search_options"
_MARK = "[alula "


def as_index_params(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings as flat parameters of the native index."""
    return {SETTINGS_PREFIX + name: value for name, value in settings.items()}


def with_settings(text: str, settings: Mapping[str, str]) -> str:
    """The user's description followed by the settings, for servers that drop unknown index parameters."""
    return f"{text} {_MARK}{json.dumps(settings, sort_keys=True)}]".strip()


def read_settings(indexes: Iterable[Mapping[str, Any]], description: str) -> tuple[str, dict[str, str]]:
    """The user's description and the settings; no settings if the collection is not one of Alula's.

    Args:
        indexes: The collection's indexes as pymilvus describes them.
        description: The collection's description.
    """
    text, described = _split(description)
    return text, next(filter(None, map(_of_index, indexes)), described)


def check_format(name: str, settings: Mapping[str, str]) -> None:
    """Raise an `AlulaError` if a collection's settings have another format than this version reads."""
    if settings.get("format") != SETTINGS_FORMAT:
        raise AlulaError(
            f"The collection {name!r} has Alula's collection format {settings.get('format')}, and this version of "
            f"Alula reads format {SETTINGS_FORMAT}; update Alula."
        )


def stored_defaults(indexes: Iterable[Mapping[str, Any]], properties: Mapping[str, Any]) -> dict[str, str]:
    """The collection's default search options as text, see `alula.catalog.search_defaults.write_defaults`.

    Args:
        indexes: The collection's indexes as pymilvus describes them.
        properties: The collection's properties.
    """
    kept = next((index for index in indexes if index.get("index_name") == DEFAULTS_INDEX), {})
    found = {**kept, **properties}
    # A property that a server cannot remove has an empty value.
    return {k.removeprefix(DEFAULTS_PREFIX): str(v) for k, v in found.items() if k.startswith(DEFAULTS_PREFIX) and v}


def _of_index(index: Mapping[str, Any]) -> dict[str, str]:
    """The settings in an index's parameters: flat (pymilvus) or inside a JSON text (other clients)."""
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
