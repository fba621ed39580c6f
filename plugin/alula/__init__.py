"""Learned sparse and binary-code index types for Milvus.

Names are imported lazily, so that ``alula --help`` waits for neither onnxruntime nor pymilvus.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alula.catalog.description import Description, describe
    from alula.catalog.repair import repair
    from alula.collection import Collection, drop
    from alula.encoders import load_encoder
    from alula.errors import AlulaError, DataError, EncoderError, ServerError, Unsupported, UnsupportedError, UsageError
    from alula.ingest.journal import Journal
    from alula.milvus import Server, connect
    from alula.replica import Refreshed, Replica
    from alula.search import Hit

    __version__: str

__all__ = [
    "AlulaError",
    "Collection",
    "DataError",
    "Description",
    "EncoderError",
    "Hit",
    "Journal",
    "Refreshed",
    "Replica",
    "Server",
    "ServerError",
    "Unsupported",
    "UnsupportedError",
    "UsageError",
    "__version__",
    "connect",
    "describe",
    "drop",
    "load_encoder",
    "repair",
]

_HOMES = {
    **dict.fromkeys(("Description", "describe"), "alula.catalog.description"),
    **dict.fromkeys(("Collection", "drop"), "alula.collection"),
    **dict.fromkeys(
        ("AlulaError", "DataError", "EncoderError", "ServerError", "Unsupported", "UnsupportedError", "UsageError"),
        "alula.errors",
    ),
    **dict.fromkeys(("Refreshed", "Replica"), "alula.replica"),
    **dict.fromkeys(("Server", "connect"), "alula.milvus"),
    "Hit": "alula.search",
    "Journal": "alula.ingest.journal",
    "load_encoder": "alula.encoders",
    "repair": "alula.catalog.repair",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("alula")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
