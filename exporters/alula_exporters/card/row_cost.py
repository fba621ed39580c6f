"""The table of a model card about the bytes of a row, by server."""

from __future__ import annotations

from alula.encoders import Encoder
from alula.errors import AlulaError
from alula.index_types import COMPARED, Capabilities, encoder_cost, native_cost, probes

_NOT_IN_2_3 = frozenset(("sparse_index", "several_vector_fields"))


def cost_rows(encoder: Encoder) -> list[tuple[str, int, int]]:
    """Where a row is stored, its bytes of memory, and its bytes on disk.

    Milvus's own index types of vectors of the same dimension follow. Without an index type for the encoder there are
    no rows.
    """
    everything = frozenset(probe.name for probe in probes())
    servers = {
        "Milvus 2.4 or later": Capabilities("Milvus 2.4", everything),
        "Milvus 2.3": Capabilities("Milvus 2.3", everything - _NOT_IN_2_3),
    }
    rows = []
    for name, capabilities in servers.items():
        for kept in (True, False):
            try:
                cost = encoder_cost(encoder, capabilities, keep_vectors=kept, maps=True)
            except AlulaError:  # this server cannot store it
                continue
            what = f"{name}, vectors {'kept' if kept else 'dropped'}"
            rows.append((what, round(cost.memory_bytes), round(cost.disk_bytes)))
    dim = encoder.info.input_dim
    own = [
        (f"{name} of Milvus in its place", round(native_cost(name, dim, params).memory_bytes), 0)
        for name, params in COMPARED.items()
    ]
    return [*rows, *own] if rows else []
