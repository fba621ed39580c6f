"""Plain technical English in docstrings, help texts, messages and documents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BANNED = re.compile(r"\b(told|tells?|hears?|anew|meanwhile|so many|is none|nobody)\b", re.IGNORECASE)
FIRST_WORD = re.compile(r"(?:^|[.!?:]\s+|\n\s*\n\s*)(What|Those|Whether|How)\b")
FIRST_LINE = 80  # characters
PACKAGES = sorted(
    str(path.relative_to(ROOT))
    for tree in (ROOT / "plugin" / "alula", ROOT / "exporters" / "alula_exporters")
    for path in tree.iterdir()
    if path.suffix == ".py" or (path / "__init__.py").exists()
)
PROGRAMS = ["benchmarks", "examples", "tools"]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md"))
)


def python_files(place: str) -> list[Path]:
    path = ROOT / place
    return [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """String literals of several words: help texts, errors, log lines; the fixed parts of f-strings joined by a dot."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "x" for p in node.values]
            yield node.lineno, "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def faults(text: str) -> list[str]:
    found = [f"the word {match[0]!r}" for match in BANNED.finditer(text)]
    return found + [f"a sentence that begins with {match[1]}" for match in FIRST_WORD.finditer(text)]


@pytest.mark.parametrize("place", [*PACKAGES, *PROGRAMS])
def test_code_speaks_plain_english(place):
    found = []
    for file in python_files(place):
        tree = ast.parse(file.read_text())
        where = file.relative_to(ROOT)
        for line, text in docstrings(tree):
            first = text.splitlines()[0]
            if len(first) > FIRST_LINE:
                found.append(f"{where}:{line} a first line of {len(first)} characters")
            found += [f"{where}:{line} {fault}" for fault in faults(text)]
        for line, text in messages(tree):
            if " " in text:
                found += [f"{where}:{line} {fault}" for fault in faults(text)]
    assert not found, f"{len(found)} places:\n" + "\n".join(dict.fromkeys(found))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_speak_plain_english(document):
    lines = (ROOT / document).read_text().splitlines()
    found = [f"{document}:{number} {fault}" for number, line in enumerate(lines, 1) for fault in faults(line)]
    assert not found, f"{len(found)} places:\n" + "\n".join(found)
