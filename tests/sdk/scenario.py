"""Scenarios: what clients do, step by step, in words that belong to no SDK.

A file in ``scenarios/`` is a list of steps. ``do`` names what is done, the other keys are its arguments; these are not
arguments:

- ``servers``: the servers that do the step (all by default);
- ``refused``: that the step must fail: always (``true``), or on the servers in the list, each perhaps with the one SDK
  that says so (``lite python``). Every other step must work;
- ``says``: a part of the reason that must be given.

``!vectors {count, seed}`` and ``!rows {ids, seed, ...}`` in the file stand for what `vectors` and `rows` make. A text
that starts with ``$`` stands for the value of that name, or for a name that only this run uses.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.sdk import python_runner
from tests.sdk.model import Model, Step
from tests.tiny_encoders import random_vectors
from tools.servers import node
from tools.servers.lite import connected

DIM = 8
HERE = Path(__file__).parent
Result = dict[str, Any]
NOT_ARGUMENTS = ("servers", "refused", "says")
# Whose results are rows, and the same in every SDK.
OF_ROWS = ("insert", "upsert", "delete", "count", "get", "query", "query_iterator", "search", "hybrid_search")


def vectors(count: int, seed: int, dim: int = DIM) -> list[list[float]]:
    """Vectors that no float loses a digit of."""
    return [[round(float(x), 4) for x in vector] for vector in random_vectors(count, dim, seed=seed)]


def rows(
    ids: Sequence[int], seed: int, vector: str = "embedding", only: Sequence[str] = (), without: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Rows with the ids from ``ids[0]`` to below ``ids[1]``, a column of each type, ``only`` or ``without`` some."""
    numbers = range(*ids)
    made = [
        {
            "id": number,
            vector: one,
            "word": f"w{number % 7}",
            "year": 1900 + number,
            "tiny": number % 100 - 50,
            "small": number * 7,
            "medium": number * 70_001 % 1_000_003,
            "rating": round(number / 8, 3),
            "exact": number / 4,
            "flag": number % 3 == 0,
            "doc": {"n": number, "deep": {"list": [number, number + 1]}, "text": f"it's {number}"},
            "tags": [f"t{number % 4}", "all"],
            "counts": [number, number * 2],
            "extra": f"dynamic {number}",
            "bits": [number * 37 % 256, number * 91 % 256],
            "sparse": {str(number % 50): 1.5, str(50 + number * 3 % 50): round(0.5 + number / 64, 4)},
        }
        for number, one in zip(numbers, vectors(len(numbers), seed), strict=True)
    ]
    return [{name: row[name] for name in (only or row) if name not in without} for row in made]


class _Loader(yaml.SafeLoader):
    """YAML with this module's own tags."""


_Loader.add_constructor("!vectors", lambda loader, node: vectors(**loader.construct_mapping(node, deep=True)))
_Loader.add_constructor("!rows", lambda loader, node: rows(**loader.construct_mapping(node, deep=True)))


def read(name: str, server: str, prefix: str, **values: Any) -> list[Step]:
    """The steps of ``scenarios/{name}.yaml`` for a server; ``values`` stand where the file says ``$name``."""
    steps = yaml.load((HERE / "scenarios" / f"{name}.yaml").read_text(), _Loader)
    return [_filled(step, {"$": prefix, **values}) for step in steps if server in step.get("servers", [server])]


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(part, values) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, values) for part in value]
    if isinstance(value, str) and value.startswith("$"):
        return values[value[1:]] if value[1:] in values else values["$"] + value[1:]
    return value


def arguments(step: Step) -> Step:
    """A step as a runner takes it."""
    return {name: value for name, value in step.items() if name not in NOT_ARGUMENTS}


def run_with_node(uri: str, steps: Sequence[Step]) -> list[Result]:
    """The results of the steps, done with Milvus's Node SDK."""
    home = node.install(HERE / "node")
    command = [str(home.binary), str(HERE / "node" / "run.mjs"), str(home.modules), uri.removeprefix("http://")]
    given = json.dumps([arguments(step) for step in steps]).replace(" NaN", ' "NaN"')
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
    return json.loads(done.stdout)


def run_with_python(uri: str, steps: Sequence[Step]) -> list[Result]:
    """The results of the steps, done with pymilvus, as plain JSON."""
    with connected(uri) as server:
        results = python_runner.run(server.client, [arguments(step) for step in steps])
    return json.loads(json.dumps(results, default=str))


RUNNERS: Mapping[str, Callable[[str, Sequence[Step]], list[Result]]] = {
    "node": run_with_node,
    "python": run_with_python,
}


@dataclass(frozen=True)
class Run:
    """What one SDK got from one server.

    Args:
        server: The server's name in the scenarios.
        sdk: One of `RUNNERS`.
        prefix: What the names of the run's collections start with.
        steps: What was done.
        results: What came of it, one for each step.
    """

    server: str
    sdk: str
    prefix: str
    steps: list[Step]
    results: list[Result]

    @classmethod
    def of(cls, scenario: str, server: str, sdk: str, uri: str, **values: Any) -> Run:
        """Do a scenario; ``values`` as `read`."""
        prefix = f"alula_{uuid.uuid4().hex[:8]}_"
        steps = read(scenario, server, prefix, **values)
        return cls(server, sdk, prefix, steps, RUNNERS[sdk](uri, steps))

    def surprises(self) -> list[str]:
        """The steps that worked and should not, or the other way round, each as a line for people."""
        return [
            f"step {number} {_short(arguments(step))}: {_short(result)}"
            for number, (step, result) in enumerate(zip(self.steps, self.results, strict=True))
            if ("error" in result) != _is_refused(step, self.server, self.sdk)
            or step.get("says", "") not in result.get("error", {}).get("reason", "")
        ]

    def mistakes(self, model: Model) -> list[str]:
        """The steps that found other rows than a model of the collections, each as lines for people."""
        lines = []
        for number, (step, result) in enumerate(zip(self.steps, self.results, strict=True)):
            expected = None if _is_refused(step, self.server, self.sdk) else model.answer(step)
            if expected is None:
                continue
            mine, right = (_in_order(step, _canonical(one, self.prefix)) for one in (result, {"ok": expected}))
            if not same(mine, right):
                lines.append(f"step {number} {_short(arguments(step))}:\n  {_short(mine)}\n  {_short(right)}")
        return lines


def differences(one: Run, other: Run) -> list[str]:
    """The steps whose results differ, each as lines for people.

    Runs of different SDKs are compared in the rows that they found and wrote: the rest is in words of their own.
    """
    lines = []
    for number, (step, mine, theirs) in enumerate(zip(one.steps, one.results, other.results, strict=True)):
        if one.sdk != other.sdk and (step["do"] not in OF_ROWS or "error" in mine or "error" in theirs):
            continue
        left, right = (
            _in_order(step, _canonical(result, run.prefix)) for result, run in ((mine, one), (theirs, other))
        )
        if not same(left, right):
            lines.append(f"step {number} {_short(arguments(step))}:\n  {_short(left)}\n  {_short(right)}")
    return lines


def _is_refused(step: Step, server: str, sdk: str) -> bool:
    refused = step.get("refused", False)
    return refused if isinstance(refused, bool) else not {server, f"{server} {sdk}"}.isdisjoint(refused)


def _in_order(step: Step, result: Result) -> Result:
    """Rows of a query have no order of their own."""
    if step["do"] in ("query", "get") and "ok" in result:
        return {"ok": sorted(result["ok"], key=lambda row: row.get("id", 0))}
    return result


def _canonical(value: Any, prefix: str) -> Any:
    """A result without what no two runs share: names, and ids and times that the server makes."""
    if isinstance(value, Mapping):
        return {key: _canonical(part, prefix) for key, part in value.items()}
    if isinstance(value, list):
        return [_canonical(part, prefix) for part in value]
    if isinstance(value, str):
        if re.fullmatch(r"-?\d{1,9}", value):  # JavaScript's numbers end before int64 does, so its SDK writes strings
            return int(value)
        return re.sub(r"\d{10,}", "#", re.sub(r"dml_\d+", "dml_#", value.replace(prefix, "$")))
    if isinstance(value, int) and abs(value) >= 10**9:
        return "#"
    return value


def same(one: Any, other: Any) -> bool:
    """Whether two results are the same, to the precision of float32."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _short(value: Any, length: int = 900) -> str:
    return json.dumps(value, sort_keys=True)[:length]
