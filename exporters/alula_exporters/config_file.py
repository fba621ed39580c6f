"""Options of a training command from a TOML file: ``--config``, checked before anything is read or trained."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from alula.errors import UsageError

_NUMBERS = (
    (click.types.BoolParamType, (bool,), "true or false"),
    (click.types.IntParamType, (int,), "a whole number"),
    (click.types.FloatParamType, (int, float), "a number"),
)


def read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Callback of ``--config``: the file's table named as the command becomes click's ``default_map``.

    So the command line and the environment win over the file, and the file over the defaults. Paths in the file are
    relative to its folder.

    Args:
        ctx: The command's context.
        param: The option ``--config`` itself, which a file cannot hold.
        path: The file; None when the option was not given.

    Raises:
        UsageError: If the file is not TOML, has no such table, or a key or value in it does not fit the command; the
            message names the file and the key.
    """
    if path is None:
        return
    command = str(ctx.command.name)
    known = {key: option for option in ctx.command.params if option is not param for key in _keys(option)}
    values: dict[str, Any] = {}
    for given, value in _table(path, command).items():
        key = given.replace("_", "-")
        if key not in known:
            raise UsageError(f"{path}: [{command}] has no option '{given}'. {_nearest(key, known)}")
        option = known[key]
        if option.name in values:
            raise UsageError(f"{path}: [{command}] gives '{option_key(option)}' twice; leave one out.")
        values[str(option.name)] = _checked(ctx, option, value, f"{path}: '{given}' in [{command}]", path.parent)
    ctx.default_map = {**(ctx.default_map or {}), **values}


def option_key(option: click.Parameter) -> str:
    """The key of an option in the file: ``--max-rows`` is ``max-rows``, the argument VECTORS is ``vectors``."""
    return _keys(option)[0]


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """TOML of tables of texts, numbers and booleans (and lists of them), as `read_config` takes it."""
    lines = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if not isinstance(value, str):
        return repr(value)
    escaped = (char if char.isprintable() and char not in '"\\' else rf"\U{ord(char):08x}" for char in value)
    return f'"{"".join(escaped)}"'


def _keys(option: click.Parameter) -> list[str]:
    if isinstance(option, click.Argument):
        return [str(option.name)]
    return [name[2:] for name in option.opts if name.startswith("--")]


def _table(path: Path, command: str) -> Mapping[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415 (tomli comes with the extra 'train', and 'alula --help' must work without)
    else:
        import tomli as tomllib  # noqa: PLC0415
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # of TOML, or of UTF-8
        raise UsageError(f"{path} is not a TOML file: {error}.") from None
    loose = [name for name, value in tables.items() if not isinstance(value, dict)]
    if loose:
        raise UsageError(f"{path}: '{loose[0]}' is in no table; put it under a line [{command}].")
    if command not in tables:
        has = f"it has {', '.join(f'[{name}]' for name in tables)}" if tables else "it is empty"
        raise UsageError(f"{path} has no table [{command}] for 'alula train {command}'; {has}.")
    table: Mapping[str, Any] = tables[command]
    return table


def _nearest(key: str, known: Iterable[str]) -> str:
    near = get_close_matches(key, known, n=1)
    return f"Did you mean '{near[0]}'?" if near else f"Its options are {', '.join(sorted(known))}."


def _checked(ctx: click.Context, option: click.Parameter, value: Any, where: str, folder: Path) -> Any:
    """The value as click takes it from a ``default_map``, or an error that says where it stands."""
    if option.multiple and isinstance(value, list):
        return [_checked_item(option, item, where, folder) for item in value]
    checked = _checked_item(option, value, where, folder)
    if not isinstance(option.type, click.Path):  # whether that exists matters only if the command line does not win
        try:
            option.type_cast_value(ctx, checked)
        except click.BadParameter as error:
            reason = error.message
            if isinstance(option.type, click.Choice):  # of which click shows the words in lower case
                reason = f"'{value}' is not one of {', '.join(map(str, option.type.choices))}."
            raise UsageError(f"{where} cannot be used: {reason}") from None
    return checked


def _checked_item(option: click.Parameter, value: Any, where: str, folder: Path) -> Any:
    types, words = next(
        ((types, words) for kind, types, words in _NUMBERS if isinstance(option.type, kind)),
        ((str,), "a text in quotes"),
    )
    if type(value) not in types:  # not isinstance: true is no whole number
        raise UsageError(f"{where} is {_shown(value)}; it must be {words}.")
    return str(folder / value) if isinstance(option.type, click.Path) else value


def _shown(value: Any) -> str:
    return _value(value) if isinstance(value, bool | int | float | str | list) else f"a {type(value).__name__}"
