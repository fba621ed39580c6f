"""The tutorial, from top to bottom: its notebook is made of the page and runs as it stands."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from tools.notebook import notebook

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/tutorial.md").read_text()
NOTEBOOK = ROOT / "examples/tutorial.ipynb"
ROWS = "1000"


@pytest.fixture
def takes_long():
    """Marks a test as slow."""


def test_the_notebook_is_up_to_date():
    assert NOTEBOOK.read_text() == notebook(PAGE), "run: python -m tools.notebook"


def test_every_command_of_the_page_is_in_a_cell():
    cells = ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"]]
    commands = re.findall(r"^\$ (?:export )?(.+)$", PAGE, re.MULTILINE)
    assert len(commands) > 8
    for command in commands:
        assert any(command in cell for cell in cells), command


def test_the_tutorial_runs_from_top_to_bottom(tmp_path, monkeypatch, takes_long):
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    for name in [name for name in os.environ if name.startswith("ALULA_") and name != "ALULA_CACHE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ROWS", ROWS)
    monkeypatch.setenv("COLUMNS", "250")  # no name in a table is folded
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    packages = [str(ROOT), str(ROOT / "plugin"), str(ROOT / "exporters")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(packages))
    content = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(content)
    (tmp_path / "examples").mkdir()
    nbclient.NotebookClient(content, timeout=900, resources={"metadata": {"path": tmp_path / "examples"}}).execute()
    printed = [
        "".join(output.get("text", "") for output in cell.get("outputs", ()))
        for cell in content.cells
        if cell.cell_type == "code"
    ]
    everything = "\n".join(printed)
    assert f"{int(ROWS):,} texts and 200 judged queries" in everything
    assert re.search(r"texts_drq: (1\.000|0\.9\d\d)", everything)  # the recall after the migration
    for words in ("nDCG@10", "fusion rrf", "texts_splade FLOPS_SPARSE"):
        assert words in everything
    assert len(printed[-1].splitlines()) == 3
    assert (tmp_path / "build/tutorial/texts-drq.md").exists()
