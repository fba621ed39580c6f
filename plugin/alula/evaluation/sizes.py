"""Bytes per row, counted by structure: the memory that a server's process has says nothing of one index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from alula.index_types import Lowering, vector_spec


@dataclass(frozen=True)
class Sizes:
    """Bytes for one row.

    Args:
        memory: What must be in memory to search, by structure.
        disk: What only needs to be on disk while searching, by structure.
        note: What to know of them.
    """

    memory: Mapping[str, float]
    disk: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


def lowering_sizes(lowering: Lowering) -> Sizes:
    """The sizes of an Alula index; its kept vectors lie on disk where Milvus can map them into memory."""
    memory: dict[str, float] = {}
    for spec in lowering.fields:
        part = spec.name.removeprefix(lowering.field.companion(""))
        name = re.sub(r"(_\d+)$", "", part).replace("_", " ")
        memory[name] = memory.get(name, 0) + spec.bytes_per_row
    kept = vector_spec(lowering.field)
    if kept is None:
        return Sizes(memory, note="the vectors were dropped")
    if lowering.field.storage == "column":
        note = "this server keeps the vectors in an ARRAY column, in memory"
        return Sizes({**memory, "kept vectors": kept.bytes_per_row}, note=note)
    note = "kept vectors are memory-mapped, where the server can"
    return Sizes(memory, {"kept vectors": kept.bytes_per_row}, note)
