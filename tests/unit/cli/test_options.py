"""Options that several commands share."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from alula.cli.main import cli, main
from alula.cli.options import RenamedOption


@click.group(context_settings={"auto_envvar_prefix": "ALULA"})
def group() -> None: ...


@group.command("create")
@click.option("--schema-from", cls=RenamedOption, old=("--like",), help="A file.")
def command(schema_from: str | None) -> None:
    click.echo(schema_from)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--schema-from", "x"], {}),
        (["--like", "x"], {}),
        ([], {"ALULA_CREATE_SCHEMA_FROM": "x"}),
        ([], {"ALULA_CREATE_LIKE": "x"}),
        ([], {"ALULA_CREATE_SCHEMA_FROM": "x", "ALULA_CREATE_LIKE": "y"}),
    ],
)
def test_a_renamed_option_works_by_both_names(arguments, environment):
    assert CliRunner().invoke(group, ["create", *arguments], env=environment).output == "x\n"


def test_the_help_has_the_present_name_alone():
    shown = CliRunner().invoke(group, ["create", "--help"]).output
    assert "--schema-from" in shown
    assert "--like" not in shown


@pytest.mark.parametrize(
    ("words", "old", "name"),
    [
        ("create", "--like", "schema_from"),
        ("load", "--patience", "retry_timeout"),
        ("evaluate", "--patience", "build_timeout"),
        ("recommend", "--patience", "build_timeout"),
    ],
)
def test_old_spellings_set_the_renamed_options(words, old, name):
    found = cli.get_command(click.Context(cli), words)
    given, _, _ = found.make_parser(click.Context(found)).parse_args([old, "5"])
    assert given[name] == "5"


def test_a_mistyped_option_suggests_no_old_spelling(capsys):
    with pytest.raises(SystemExit):
        main(["load", "words", "words.npy", "--patiense", "5"])
    message = capsys.readouterr().err
    assert "No such option '--patiense'" in message
    assert "'--patience'" not in message
