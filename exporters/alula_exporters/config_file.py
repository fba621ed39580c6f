"""Read training options from a TOML file (``--config``), checked before training."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from alula.errors import UsageError


def read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Callback of ``--config``: makes the command's table click's ``default_map``.

    So the command line and the environment override the file, and the file the defaults. Values are read as on the
    command line; paths in the file are relative to its folder.

    Args:
        ctx: The command's context.
        param: The option ``--config`` itself, which a file cannot contain.
        path: The file; None if the option was not given.

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
        values[str(option.name)] = _convert(ctx, option, value, f"{path}: '{given}' in [{command}]", path.parent)
    ctx.default_map = {**(ctx.default_map or {}), **values}


def option_key(option: click.Parameter) -> str:
    """Key of an option: ``max-rows`` for ``--max-rows``, ``data`` for DATA."""
    return _keys(option)[0]


def _keys(option: click.Parameter) -> list[str]:
    if isinstance(option, click.Argument):
        return [str(option.name)]
    return [name[2:] for name in option.opts if name.startswith("--")]


def _table(path: Path, command: str) -> Mapping[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415 (beside its twin)
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


def _convert(ctx: click.Context, option: click.Parameter, value: Any, where: str, folder: Path) -> Any:
    """Convert a value as on the command line; a path may be overridden, so unchecked."""
    if isinstance(value, dict | list):
        raise UsageError(f"{where} is a {'table' if isinstance(value, dict) else 'list'}; it must be a single value.")
    if isinstance(option.type, click.Path):
        return str(folder / str(value))
    try:
        return option.type_cast_value(ctx, str(value))  # as text: click would cut 128.5 to an integer
    except click.BadParameter as error:
        raise UsageError(f"{where} cannot be used: {error.message.rstrip('.')}.") from None
