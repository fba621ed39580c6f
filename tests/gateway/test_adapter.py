"""Milvus Lite's own tests of its Milvus protocol, from its public source package, through the gateway.

They talk with pymilvus to the server that they start. What passes straight must pass through the gateway.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from tests.servers import lite3

GATEWAY = ("-p", "tests.gateway.adapter_plugin")
# Of 50 files those with the most calls for their time; all pass straight, and the rest takes four minutes.
FILES = (
    "test_grpc_crud.py",
    "test_grpc_search.py",
    "test_grpc_database.py",
)


def outcomes(report: Path, files: Sequence[str], *arguments: str) -> Mapping[str, str]:
    """How tests of Milvus Lite end, by their names for pytest: passed, failure, error or skipped."""
    (source,) = lite3.source().iterdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
    command += [f"--rootdir={source}", "-c", str(source / "pyproject.toml"), *(str(source / name) for name in files)]
    done = subprocess.run(command, env=lite3.environment(), capture_output=True, text=True, check=False)
    assert report.exists(), (done.stdout + done.stderr)[-3000:]
    return {
        f"{case.get('classname', '')}::{case.get('name')}": next((part.tag for part in case), "passed")
        for case in ElementTree.parse(report).iter("testcase")
    }


def test_what_passes_straight_passes_through_the_gateway(tmp_path):
    files = [f"tests/adapter/{name}" for name in FILES]
    through = outcomes(tmp_path / "gateway.xml", files, *GATEWAY)
    straight = outcomes(tmp_path / "straight.xml", files)
    assert straight.keys() == through.keys()
    worse = {name: (straight[name], end) for name, end in through.items() if end != straight[name]}
    assert not worse
