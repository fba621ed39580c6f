"""Messages and documents: every command in them parses, and the library leaves options to the command line."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from alula.cli.main import cli
from alula.cli.wording import as_options, commands_of

ROOT = Path(__file__).parents[3]
CODE = sorted([*(ROOT / "plugin" / "alula").rglob("*.py"), *(ROOT / "exporters" / "alula_exporters").rglob("*.py")])
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])
FILLED = "PLACEHOLDER"
IN_QUOTES = re.compile(r"'(alula [^']*)'|``?(alula\s[^`]*)``?")
IMPORTS_CLICK = re.compile(r"^(import|from) click", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])(?<!var\()--[a-z]")


def literals(file: Path) -> Iterator[tuple[int, str, bool]]:
    """Line, text with placeholders filled in, and True for docstrings, of every string in a file."""
    tree = ast.parse(file.read_text())
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else FILLED for part in node.values)
            yield node.lineno, "".join(parts), False
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value, id(node) in docstrings


def commands_in_code(file: Path) -> Iterator[tuple[str, str]]:
    for line, text, docstring in literals(file):
        where = f"{file.relative_to(ROOT)}:{line}"
        yield from ((where, match[1] or match[2]) for match in IN_QUOTES.finditer(text))
        if docstring:
            lines = re.finditer(r"^\s*(alula [a-z-]+ .*?)(?:   .*)?$", text.replace("\\\n", " "), re.MULTILINE)
            yield from ((where, match[1]) for match in lines if "`" not in match[1])
        elif text.startswith("alula "):
            yield where, text


def commands_in_document(file: Path) -> Iterator[tuple[str, str]]:
    """The commands in code blocks and between backticks."""
    prose, fenced, text = [], False, file.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            match = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(alula [a-z-].*?)(?:   .*)?$", line)
            if match:
                yield str(file.relative_to(ROOT)), match[1]
        else:
            prose.append(line)
    for match in re.finditer(r"`(alula\s[^`]*)`", "\n".join(prose)):
        yield str(file.relative_to(ROOT)), match[1]


def fault(text: str) -> str:
    """The reason for which click would refuse a command line, apart from parameters that it leaves out; "" if none."""
    words = shlex.split(text, comments=True)[1:]
    words = words[: next((i for i, word in enumerate(words) if word in ("|", ">", "&", "&&")), len(words))]
    return _fault(cli, [FILLED if word == "..." else word for word in words])


def _fault(command: click.Command, words: list[str]) -> str:
    context = click.Context(command, info_name="alula")
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        if words[0] == FILLED:
            return min((_fault(command, [name, *words[1:]]) for name in command.list_commands(context)), key=len)
        found = command.get_command(context, words[0].rstrip(".,"))
        return _fault(found, words[1:]) if found else f"{command.name} has no command {words[0]!r}"
    if words and words[-1].startswith("--") and not _is_flag(command, words[-1]):
        words = [*words, FILLED]  # the option itself is meant
    try:
        given, rest, _ = command.make_parser(context).parse_args(list(words))
    except click.UsageError as error:
        return error.format_message()
    if set(rest) - {FILLED}:
        return f"{command.name} takes no argument {rest[0]!r}"
    for parameter in command.params:
        value = given.get(str(parameter.name))
        if isinstance(parameter.type, click.Choice) and isinstance(value, str) and not value.isupper():
            try:
                parameter.type_cast_value(context, value)
            except click.UsageError as error:
                return error.format_message()
    return ""


def _is_flag(command: click.Command, word: str) -> bool:
    options = [option for option in command.params if isinstance(option, click.Option)]
    return any(word in (*option.opts, *option.secondary_opts) and option.is_flag for option in options)


def test_commands_in_messages_parse():
    commands = [found for file in CODE for found in commands_in_code(file)]
    assert len(commands) > 40
    faults = [f"{where} {text!r}: {reason}" for where, text in commands if (reason := fault(text))]
    assert not faults, "\n".join(faults)


def test_commands_in_documents_parse():
    commands = [found for file in DOCUMENTS for found in commands_in_document(file)]
    assert len(commands) > 20
    faults = [f"{where} {text!r}: {reason}" for where, text in commands if (reason := fault(text))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("alula sarch", "no command 'sarch'"),
        ("alula migrate NAME NEW --index-type DRQ", "no argument 'NAME'"),
        ("alula load words rows.npy --no-such-option", "--no-such-option"),
        ("alula search words --format yaml", "yaml"),
        ("alula train drq --beam", ""),
        ("alula encoders push FILE --replace", ""),
        (f"alula train {FILLED} --metric {FILLED}", ""),
    ],
)
def test_faults_of_commands(text, reason):
    assert reason in fault(text) if reason else not fault(text)


def packages() -> list[str]:
    return sorted({"/".join(file.relative_to(ROOT).parts[:3]) for file in CODE})


@pytest.mark.parametrize("package", packages())
def test_the_library_names_no_options(package):
    """Files that import click are the command line; 'alula ...' in a message is a command of its own."""
    found = []
    for file in CODE:
        if not file.is_relative_to(ROOT / package) or IMPORTS_CLICK.search(file.read_text()):
            continue
        for line, text, docstring in literals(file):
            message = not docstring and not text.startswith("alula ")
            if message and OPTION.search(IN_QUOTES.sub("", text)):
                found.append(f"{file.relative_to(ROOT)}:{line} {text}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("command", "message", "spelled"),
    [
        ("create", 'use layout="hamming".', "use --layout hamming."),
        ("create", "without them (keep_vectors=False).", "without them (--drop-vectors)."),
        ("load", "give resume=True, or journal=... another one.", "give --resume, or --journal another one."),
        ("load", "raise max_errors=100.", "raise --max-errors 100."),
        (
            "load",
            "The filter 'mode=3' is wrong, and so is mode==3.",
            "The filter 'mode=3' is wrong, and so is mode==3.",
        ),
        ("encoders push", 'give replace=True or name="words"', "give --replace or --name words"),
        ("load", "name the one (vector_field=...).", "name the one (--vector-column)."),
        ("migrate", "name the one (vector_field=...).", "name the one (--vector-field)."),
        ("train drq", "name the one (text_column=...).", "name the one (--text-column)."),
        ("describe", 'use layout="hamming".', 'use layout="hamming".'),
        ("train drq", "use card=False.", "use --no-card."),
        ("search", "give encoder='a b.onnx'.", "give --encoder a b.onnx."),
        ("search", "give name=...", "give NAME."),
    ],
)
def test_python_arguments_become_options(command, message, spelled):
    assert as_options(message, commands_of(command.split(), cli)[-1]) == spelled
