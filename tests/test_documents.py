"""Documents agree with the program and with each other."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md"))
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    broken = []
    for link in LINK.findall(document.read_text()):
        if re.match(r"https?:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (document.parent / place).resolve() if place else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert not {page for page in pages if f"({page})" not in index}


def test_the_cli_reference_is_up_to_date():
    # in a new process: commands take their options from the index types that are registered when they are imported
    program = "from tools.cli_reference import reference; print(reference(), end='')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ROOT / "docs" / "cli.md").read_text() == done.stdout, "run: python -m tools.cli_reference"


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1_200


def test_python_versions_agree():
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert oldest is not None
    for name in ("README.md", "CONTRIBUTING.md", "Makefile"):
        assert f"Python {oldest[1]} or" in (ROOT / name).read_text()


def test_the_workflow_runs_what_is_there():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {target for command in commands for target in re.findall(r"make ([a-z-]+)", command)} <= targets
    assert all((ROOT / script).exists() for command in commands for script in re.findall(r"bash (\S+)", command))
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert jobs["quick"]["strategy"]["matrix"]["python"][0] == oldest[1]


class Links(HTMLParser):
    """The links of a page of the site, and what a browser fetches for it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = self.links if tag == "a" else self.fetched
        found += [value for name, value in attrs if name in ("href", "src") and value]


def test_the_site_is_whole(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs-material needs Python 3.11 or newer")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = [page for page in tmp_path.rglob("*.html") if page.name != "404.html"]
    assert len(pages) == len([path for path in DOCUMENTS if path.is_relative_to(ROOT / "docs")]) + 1  # and deployment
    broken = []
    for page in pages:
        links = Links(page)
        for link in (*links.links, *links.fetched):
            place = link.partition("#")[0].partition("?")[0]
            elsewhere = re.match(r"https?:", link)
            if (elsewhere and link in links.fetched) or (
                place and not elsewhere and not (page.parent / unquote(place)).exists()
            ):
                broken.append(f"{page.relative_to(tmp_path)}: {link}")
    assert not broken
    assert (tmp_path / "files/examples/train.toml").read_bytes() == (ROOT / "examples/train.toml").read_bytes()
