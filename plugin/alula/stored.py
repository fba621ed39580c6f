"""What was created, written where every client finds it again: in the native index's parameters and the description."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

FORMAT = "1"
PREFIX = "alula."
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
        with contextlib.suppress(json.JSONDecodeError):
            return text.strip(), dict(json.loads(tail.removesuffix("]")))
    return description, {}
