"""Milvus Lite's own tests of its Milvus protocol, from its public source package, through the gateway.

They talk with pymilvus to servers that they start. What passes straight must pass through the gateway.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from tools.servers import lite3

LEAST = 700  # passed through the gateway when this was written: 745 of 768; the others need what is not there


def outcomes(report: Path, *arguments: str) -> Mapping[str, str]:
    """How the tests end, by their names: passed, failure, error or skipped."""
    (source,) = lite3.source().iterdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
    command += [f"--rootdir={source}", "-c", str(source / "pyproject.toml"), str(source / "tests" / "adapter")]
    done = subprocess.run(command, env=lite3.environment(), capture_output=True, text=True, check=False)
    assert report.exists(), (done.stdout + done.stderr)[-3000:]
    return {
        f"{case.get('classname', '')}::{case.get('name')}": next((part.tag for part in case), "passed")
        for case in ElementTree.parse(report).iter("testcase")
    }


def test_what_passes_straight_passes_through_the_gateway(tmp_path):
    through = outcomes(tmp_path / "gateway.xml", "-p", "tests.sdk.adapter_plugin")
    assert list(through.values()).count("passed") >= LEAST
    failed = [name for name, end in through.items() if end in ("failure", "error")]
    if failed:
        straight = outcomes(tmp_path / "straight.xml")
        assert not [name for name in failed if straight[name] == "passed"]
