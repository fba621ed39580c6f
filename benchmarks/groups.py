"""Groups of benchmarks: a package and a page each; a part is a module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from benchmarks.report import Report


class Part(Protocol):
    """The module of a part; its page shows TITLE, ANSWERS and the report's tables."""

    TITLE: str
    ANSWERS: str | None  # the question and how to read the tables, in Markdown; None for a part with its own page
    SEEDS: tuple[int, ...]  # of what is repeated; a quick run takes the first

    def measure(self, report: Report, *, quick: bool) -> None:
        """Fill the report with rows, targets and pictures."""


@dataclass(frozen=True)
class Group:
    """A group of benchmarks.

    Args:
        name: The package.
        make: The target of make that runs it.
        variable: The variable of make that names some parts.
        heading: Text before a part's title on the page; ``{}`` is the part's name.
        modules: The parts' modules, by the names that a user types.
    """

    name: str
    make: str
    variable: str
    heading: str
    modules: Mapping[str, str]

    def parts(self, wanted: Iterable[str] = ()) -> dict[str, Part]:
        """The parts by name, all of them unless some are named."""
        chosen = list(wanted) or list(self.modules)
        missing = [name for name in chosen if name not in self.modules]
        if missing:
            raise SystemExit(f"{self.make} has no part {', '.join(missing)}; there are {', '.join(self.modules)}.")
        return {name: cast(Part, import_module(f"benchmarks.{self.name}.{self.modules[name]}")) for name in chosen}

    def report(self, name: str, seeds: Iterable[int]) -> Report:
        """An empty report of one part."""
        return Report(f"{self.name}-{name}", list(seeds), f'make {self.make} {self.variable}="{name}"')


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


GROUPS = {
    group.name: group
    for group in (
        Group(
            "milvus",
            "bench",
            "PARTS",
            "Inside Milvus: ",
            {
                **_same("job", "sentences"),
                "sentences-768": "sentences_768",
                "sentences-lite": "sentences_lite",
                "codes": "codes",
                "codes-768": "codes_768",
                "codes-1536": "codes_1536",
                **_same("reranking", "memory", "text"),
                "text-training": "text_training",
            },
        ),
        Group("papers", "bench-papers", "TABLES", "Table {}: ", {str(i): f"table{i}" for i in range(1, 7)}),
        Group("loading", "bench-load", "PARTS", "Loading: ", _same("faults", "throughput", "memory", "scale")),
        Group("speed", "bench-speed", "PARTS", "Speed: ", _same("hnsw", "codes", "lite3")),
        Group(
            "gateway",
            "bench-gateway",
            "PARTS",
            "Gateway: ",
            {**_same("latency", "throughput", "clients", "vectordbbench", "abuse", "soak"), "soak-lite": "soak_lite"},
        ),
    )
}
