"""Milvus's Go SDK as a client: k6 with it built in, installed into the cache."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tools.servers.cache import ServerError, fetch, installed

PACKAGE = "xk6-milvus-bench==0.1.0"  # k6 1.7.0 with milvus/client/v2 2.5.4
SCRIPT = Path(__file__).parent / "go" / "search.js"
# k6 reports its use to its makers, serves an API and may fetch extensions, unless it is told not to
OFFLINE = {"K6_NO_USAGE_REPORT": "true", "K6_ADDRESS": "", "K6_AUTO_EXTENSION_RESOLUTION": "false"}
HAS_PROGRAM = (platform.system(), platform.machine()) == ("Linux", "x86_64")


@dataclass(frozen=True)
class GoClient:
    """The Go SDK at one address.

    Args:
        uri: The address of Milvus or of a gateway, ``http://host:port``.
    """

    uri: str

    def search(
        self, collection: str, queries: np.ndarray, *, field: str, limit: int, filter: str = ""
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Search for queries (n, d) one after another.

        Returns:
            The ids and the scores of each.
        """
        given = {"collection": collection, "field": field, "limit": limit, "filter": filter, "answers": True}
        lines, _ = self._run(given, queries, {"vus": 1, "iterations": len(queries)})
        answers = sorted(json.loads(line) for line in lines)
        return [ids for _, ids, _ in answers], [scores for _, _, scores in answers]

    def load(
        self, collection: str, queries: np.ndarray, *, field: str, limit: int, clients: int, seconds: float
    ) -> Mapping[str, Mapping[str, float]]:
        """Search with several clients at once, each with a connection of its own.

        Returns:
            k6's metrics by name; each iteration is one search.
        """
        given = {"collection": collection, "field": field, "limit": limit}
        _, metrics = self._run(given, queries, {"vus": clients, "duration": f"{seconds:g}s"})
        return {name: metric["values"] for name, metric in metrics.items()}

    def _run(
        self, given: Mapping[str, Any], queries: np.ndarray, options: Mapping[str, Any]
    ) -> tuple[Sequence[str], Mapping[str, Any]]:
        """The lines that the script prints, and k6's metrics."""
        program = installed(PACKAGE.replace("==", "-"), lambda directory: fetch("k6", directory, PACKAGE))
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            shown = {"summaryTrendStats": ["med", "p(95)", "p(99)", "max"], **options}
            whole = {
                **given,
                "address": self.uri.removeprefix("http://"),
                "queries": queries.tolist(),
                "options": shown,
                "summary": str(folder / "summary.json"),
            }
            (folder / "given.json").write_text(json.dumps(whole))
            command = [str(program / "xk6_milvus_bench" / "bin" / "k6-linux-amd64"), "run", "--quiet"]
            command += ["--log-format", "raw", "--console-output", str(folder / "answers"), str(SCRIPT)]
            done = subprocess.run(
                command,
                env={**os.environ, **OFFLINE, "GIVEN": str(folder / "given.json")},
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            failed = done.returncode or "level=error" in done.stderr or "\n" in done.stderr.strip()
            if failed:
                raise ServerError(f"The Go client failed: {(done.stderr or done.stdout)[-1000:]}")
            answers = folder / "answers"
            lines = answers.read_text().splitlines() if answers.exists() else []
            return lines, json.loads((folder / "summary.json").read_text())
