"""Messages of the library with Python arguments spelled as options."""

from __future__ import annotations

import click

from alula.errors import respell

QUOTES = "'\""
# arguments of the library that are the opposite of an option
_OPPOSITES = {("keep_vectors", "False"): ("drop_vectors", "True"), ("keep_vectors", "True"): ("drop_vectors", "False")}
# where a command has no option of the first name
_SYNONYMS = {"vector_field": "vector_column", "text_field": "text_column"}


def as_options(message: str, command: click.Command) -> str:
    """Spell the Python arguments in a message as options of a command.

    Args:
        message: The message, as `alula.errors` describes it.
        command: The command that failed; arguments that it has no option for stay as they are.
    """
    parameters = {str(parameter.name): parameter for parameter in command.params}
    parameters |= {_argument(option): p for p in command.params for option in p.opts}

    def spell(name: str, value: str) -> str | None:
        name, value = _OPPOSITES.get((name, value), (name, value))
        name = name if name in parameters else _SYNONYMS.get(name, name)
        return _spelled(parameters[name], name, value) if name in parameters else None

    spelled = respell(message, spell)
    return f"{spelled}." if spelled != message and message.endswith("=...") else spelled


def commands_of(args: list[str], group: click.Command) -> list[click.Command]:
    """The group, and the commands that a command line names, the one that runs last."""
    commands = [group]
    for arg in args:
        command = commands[-1]
        found = command.get_command(click.Context(command), arg) if isinstance(command, click.Group) else None
        if found is None:
            break
        commands.append(found)
    return commands


def _argument(option: str) -> str:
    """The name of the argument that an option sets."""
    return option.strip("-").replace("-", "_")


def _spelled(parameter: click.Parameter, name: str, value: str) -> str:
    if not isinstance(parameter, click.Option):
        return str(parameter.name).upper()
    option = next((option for option in parameter.opts if _argument(option) == name), max(parameter.opts, key=len))
    if value == "..." or (parameter.is_flag and value == "True"):
        return option
    if parameter.is_flag:
        return max(parameter.secondary_opts, key=len) if parameter.secondary_opts else f"no {option}"
    return f"{option} {value.strip(QUOTES)}"
