"""The mapping of fields to columns, from a small TOML file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from alula.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_KEYS = ("vector", "text", "columns")


@dataclass(frozen=True)
class ColumnMapping:
    """The content of a mapping file.

    Args:
        columns: The column of each field that is named differently.
        vector: The column with the vectors, if it is named.
        text: The column with the texts, if it is named.
    """

    columns: Mapping[str, str]
    vector: str | None = None
    text: str | None = None


def read_mapping(path: Path) -> ColumnMapping:
    """Read a mapping file.

    It contains ``vector = "emb"`` or ``text = "body"``, and a table ``[columns]`` of ``field = "column"``.

    Raises:
        UsageError: If the file cannot be read, is not TOML, or holds anything else.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # of TOML, or of UTF-8
        raise UsageError(f"{path} is not a TOML file: {error}.") from None
    for key in content:
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "its keys are vector, text and the table [columns]."
            raise UsageError(f"{path}: there is no key '{key}' in a mapping; {hint}")
    columns = content.get("columns", {})
    if not isinstance(columns, dict):
        raise UsageError(f"{path}: 'columns' must be a table: a line [columns], and below it field = \"column\".")
    for key, value in {**columns, **{key: content[key] for key in _KEYS[:2] if key in content}}.items():
        _check_name(path, key, value)
    return ColumnMapping(columns, content.get("vector"), content.get("text"))


def _check_name(path: Path, key: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{path}: '{key}' must be the name of a column, in quotes.")
