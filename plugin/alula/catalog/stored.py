"""What was created, written where every client finds it again: in the native index's parameters and the description."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

FORMAT = "1"
PREFIX = "alula."
# Not below PREFIX: versions that know nothing of default options must not take them for the settings.
DEFAULTS_PREFIX = "alula_search."
DEFAULTS_INDEX = "alula_search_options"
_MARK = "[alula "


def in_index_params(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings as flat parameters of the native index."""
    return {PREFIX + name: value for name, value in settings.items()}


def in_description(text: str, settings: Mapping[str, str]) -> str:
    """The user's description with the settings behind it, for servers that drop unknown index parameters."""
    return f"{text} {_MARK}{json.dumps(settings, sort_keys=True)}]".strip()


def read(indexes: Iterable[Mapping[str, Any]], description: str) -> tuple[str, dict[str, str]]:
    """The user's description and the settings, empty if the collection is not one of Alula's.

    Args:
        indexes: What pymilvus says of the collection's indexes.
        description: The collection's description.
    """
    text, described = _split(description)
    return text, next(filter(None, map(_of_index, indexes)), described)


def read_defaults(indexes: Iterable[Mapping[str, Any]], properties: Mapping[str, Any]) -> dict[str, str]:
    """The collection's default search options, wherever `alula.catalog.search_defaults.write_defaults` could keep them.

    Args:
        indexes: What pymilvus says of the collection's indexes.
        properties: The collection's properties.
    """
    kept = next((index for index in indexes if index.get("index_name") == DEFAULTS_INDEX), {})
    found = {**kept, **properties}
    # what cannot be removed from a server is kept empty
    return {k.removeprefix(DEFAULTS_PREFIX): str(v) for k, v in found.items() if k.startswith(DEFAULTS_PREFIX) and v}


def _of_index(index: Mapping[str, Any]) -> dict[str, str]:
    """The settings in an index's parameters: flat (pymilvus) or inside a JSON text (other clients)."""
    nested = index.get("params")
    if isinstance(nested, str):
        with contextlib.suppress(json.JSONDecodeError):
            nested = json.loads(nested)
    everything = {**(nested if isinstance(nested, dict) else {}), **index}
    return {key.removeprefix(PREFIX): str(value) for key, value in everything.items() if key.startswith(PREFIX)}


def _split(description: str) -> tuple[str, dict[str, str]]:
    text, found, tail = description.rpartition(_MARK)
    if found:
        with contextlib.suppress(ValueError, TypeError, RecursionError):  # no JSON, or no object: somebody else's words
            return text.strip(), dict(json.loads(tail.removesuffix("]")))
    return description, {}
