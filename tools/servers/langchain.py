"""LangChain's store on Milvus, installed into the cache for its other Milvus Lite."""

from __future__ import annotations

from pathlib import Path

from tools.servers.cache import fetch, installed

VERSION = "0.4.0"


def install() -> Path:
    """The directory with ``langchain_milvus``, without its dependencies.

    Raises:
        ServerError: pip could not install the package.
    """
    return installed(f"langchain-milvus-{VERSION}", _fetch)


def _fetch(directory: Path) -> None:
    fetch(f"langchain-milvus {VERSION}", f"langchain-milvus=={VERSION}", directory)
