"""Plain technical English in docstrings, help texts, messages and documents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BANNED = re.compile(r"\b(told|tells?|hears?|anew|meanwhile|so many|is (?-i:none)|nobody)\b", re.IGNORECASE)
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


def docstring_nodes(tree: ast.Module) -> Iterator[tuple[int, str, ast.Constant]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text, node.body[0].value


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The docstrings of everything in a file; those of click commands are their help texts."""
    for line, text, _ in docstring_nodes(tree):
        yield line, text


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """All other strings: help texts of options, errors, log lines; placeholders of f-strings read as "x"."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    inside |= {id(node) for _, _, node in docstring_nodes(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "x" for p in node.values]
            yield node.lineno, "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def faults(text: str) -> list[str]:
    found = [f"the word {match[0]!r}" for match in BANNED.finditer(text)]
    return found + [f"a sentence that begins with {match[1]}" for match in FIRST_WORD.finditer(text)]


@pytest.mark.parametrize("package", [*PACKAGES, *PROGRAMS])
def test_code_speaks_plain_english(package):
    found = []
    for file in python_files(package):
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


def test_the_word_list():
    assert faults("Tell nobody. Whether it is none, it is None.\n\nHow so?") == [
        "the word 'Tell'",
        "the word 'nobody'",
        "the word 'is none'",
        "a sentence that begins with Whether",
        "a sentence that begins with How",
    ]
    assert not faults("Tellurium; somebody is nonetheless. No one knows what this is.")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_speak_plain_english(document):
    lines = (ROOT / document).read_text().splitlines()
    found = [f"{document}:{number} {fault}" for number, line in enumerate(lines, 1) for fault in faults(line)]
    assert not found, f"{len(found)} places:\n" + "\n".join(found)
