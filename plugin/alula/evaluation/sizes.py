"""Bytes per row of an index, computed from its structures.

The memory of the server's process is no measure: it includes everything else that the server has loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from alula.index_types import Lowering, vector_spec


@dataclass(frozen=True)
class Sizes:
    """Bytes for one row.

    Args:
        memory: Bytes that a search needs in memory, by structure.
        disk: Bytes that may stay on disk during a search, by structure.
        note: A remark on the figures.
    """

    memory: Mapping[str, float]
    disk: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


def lowering_sizes(lowering: Lowering) -> Sizes:
    """The sizes of an Alula index; memory-mapped kept vectors count as disk."""
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
