"""The hook of ``mkdocs.yml``: links to files beside the documents.

In the repository a document links to what lies beside ``docs/``. On the site ``deploy/README.md`` is a page, other
files are copied beside the pages, and a link to a folder or to the README becomes its text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("deploy/README.md",)  # beside docs/, as pages of the same path
COPIES = "files"
_LINK = re.compile(r"\[([^\]\[]*)\]\(([^)\s:#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files beside ``docs/`` to which documents link."""
    for page in PAGES:
        files.append(File.generated(config, page, abs_src_path=str(ROOT / page)))
    for page in [file for file in files if file.is_documentation_page()]:
        for _, target, _ in _LINK.findall(page.content_string):
            path = _in_repository(page.src_uri, target)
            name = f"{COPIES}/{path}"
            if _is_copied(path) and files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Point links of a page to where the files are on the site."""
    del config, files
    return _LINK.sub(lambda link: _rewritten(page.file.src_uri, *link.groups(default="")), markdown)


def _rewritten(page: str, text: str, target: str, anchor: str) -> str:
    path = _in_repository(page, target)
    if path.startswith("docs/"):
        place = path.removeprefix("docs/")
    elif path in PAGES:
        place = path
    elif _is_copied(path):
        place = f"{COPIES}/{path}"
    else:
        return text
    return f"[{text}]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{anchor})"


def _in_repository(page: str, target: str) -> str:
    """The path in the repository that a link of a page means."""
    source = page if page in PAGES else f"docs/{page}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _is_copied(path: str) -> bool:
    beside = not path.startswith(("docs/", "../")) and path not in PAGES
    return beside and path != "README.md" and (ROOT / path).is_file()
