"""Sentences about the bytes of a row, for ``create``, ``describe`` and ``doctor``."""

from __future__ import annotations

import click

from alula.catalog.schema import ScalarField
from alula.index_types import COMPARED, FREED, KEPT, RowCost, Storage, key_cost, native_cost


def memory_words(cost: RowCost) -> str:
    """Bytes of memory by structure: ``48 bytes (drq sign 32, drq code 16)``."""
    parts = ", ".join(f"{name} {size:,.0f}" for name, size in cost.memory.items())
    return f"{cost.memory_bytes:,.0f} bytes ({parts})"


def disk_words(cost: RowCost) -> str:
    """Bytes on disk: ``1,536 bytes (kept vectors), memory-mapped``."""
    parts = ", ".join(cost.disk)
    return f"{cost.disk_bytes:,.0f} bytes ({parts}), memory-mapped" if parts else "nothing is read from disk"


def compared_words(dim: int) -> str:
    """Memory of Milvus's own index types: ``HNSW 1,733 and IVF_SQ8 427 bytes``."""
    costs = {name: native_cost(name, dim, params).memory_bytes for name, params in COMPARED.items()}
    return " and ".join(f"{name} {size:,.0f}" for name, size in costs.items()) + " bytes"


def key_words(key: ScalarField) -> str:
    """Memory of a primary key: ``39 bytes``, at least so for strings."""
    least = "at least " if key.data_type == "VARCHAR" else ""
    return f"{least}{key_cost(key.data_type).memory_bytes:,.0f} bytes"


def show_cost(cost: RowCost, dim: int, storage: Storage, key: ScalarField) -> None:
    """Print the bytes of a row, with a remedy where its vectors lie in memory.

    Args:
        cost: The bytes of its index and kept vectors.
        dim: The dimension of its vectors.
        storage: The place of its vectors.
        key: The primary key.
    """
    click.echo(
        f"Memory per row: {memory_words(cost)}, beside {key_words(key)} of the primary key {key.name} and of Milvus. "
        f"Disk per row: {disk_words(cost)}."
    )
    click.echo(f"In the place of the index, at {dim:,} dimensions: {compared_words(dim)} of memory.")
    if KEPT not in cost.memory:
        return
    hnsw = native_cost("HNSW", dim, COMPARED["HNSW"]).memory_bytes
    share = cost.memory_bytes / hnsw
    amount = "more memory than HNSW" if share > 1 else f"{share:.0%} of HNSW's memory"
    where = "an ARRAY column, because it has one vector field per collection" if storage == "column" else "memory"
    click.echo(
        f"This server keeps the vectors in {where}: with them the index takes {amount}. Drop them (--drop-vectors), or "
        "use Milvus 2.4 or later, which maps them from disk."
    )
    if storage == "column":
        click.echo(f"{FREED[0].upper()}{FREED[1:]}.")
