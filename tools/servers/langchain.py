"""LangChain's store on Milvus, installed once into the cache: it asks for another Milvus Lite than these tests have."""

from __future__ import annotations

from pathlib import Path

from tools.servers.cache import fetch, installed

VERSION = "0.4.0"


def install() -> Path:
    """The directory that holds the package ``langchain_milvus``; what else it needs is among the development packages.

    Raises:
        ServerError: pip could not install the package.
    """
    return installed(f"langchain-milvus-{VERSION}", _fetch)


def _fetch(directory: Path) -> None:
    fetch(f"langchain-milvus {VERSION}", f"langchain-milvus=={VERSION}", directory)
