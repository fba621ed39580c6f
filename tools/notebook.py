"""Make a notebook of docs/tutorial.md: ``python -m tools.notebook``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCE = Path("docs/tutorial.md")
NOTEBOOK = Path("examples/tutorial.ipynb")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^):#]+)(#[^)]*)?\)")


def notebook(text: str) -> str:
    """A page as a notebook: commands and Python are cells, the rest is text."""
    found = [{**one, "id": f"cell-{number}"} for number, one in enumerate(_cells(text), 1)]
    about = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": found, "metadata": about, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def _cells(text: str) -> Iterator[dict[str, Any]]:
    yield _code("%cd -q ..")  # the page's paths are those of the repository, and this file lies in examples/
    end = 0
    for block in _BLOCK.finditer(text):
        yield from _prose(text[end : block.start()])
        yield _code(_shell(block[2]) if block[1] == "" else block[2].rstrip())
        end = block.end()
    yield from _prose(text[end:])


def _prose(text: str) -> Iterator[dict[str, Any]]:
    if text.strip():
        source = _LINK.sub(lambda link: f"]({_from_examples(link[1])}{link[2] or ''})", text.strip())
        yield {"cell_type": "markdown", "metadata": {}, "source": source.splitlines(keepends=True)}


def _from_examples(target: str) -> str:
    return target.removeprefix("../examples/") if target.startswith("../examples/") else f"../docs/{target}"


def _code(source: str) -> dict[str, Any]:
    lines = source.splitlines(keepends=True)
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": lines}


def _shell(block: str) -> str:
    """A cell of commands, which a failed one ends; exports hold for later cells."""
    commands = re.sub(r"^\$ ", "", block.rstrip(), flags=re.MULTILINE)
    if all(line.startswith("export ") for line in commands.splitlines()):
        return "\n".join(f"%env {line.removeprefix('export ')}" for line in commands.splitlines())
    return f"%%script bash -e\n{commands}"


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(SOURCE.read_text()))
