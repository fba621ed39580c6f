"""Frameworks' stores on Milvus, in the cache because they want other packages."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

from tools.servers.cache import fetch, installed

# By framework: the packages that the tests' own environment lacks, the store first.
STORES: Mapping[str, tuple[str, ...]] = {
    "langchain": ("langchain-milvus==0.4.0",),
    "llama-index": (
        "llama-index-vector-stores-milvus==1.2.0",
        "llama-index-core==0.14.25",
        "llama-index-instrumentation==0.6.0",
        "llama-index-workflows==2.26.1",
        "aiosqlite==0.22.1",
        "banks==2.5.1",
        "dataclasses-json==0.6.7",
        "deprecated==1.3.1",
        "dirtyjson==1.0.8",
        "filetype==1.2.0",
        "greenlet==3.5.6",
        "griffe==2.4.1",
        "griffelib==2.4.1",
        "marshmallow==3.26.2",
        "nest-asyncio==1.6.0",
        "nltk==3.10.4",
        "sqlalchemy==2.1.9",
        "tiktoken==0.14.0",
        "tinytag==2.3.2",
        "typing-inspect==0.9.0",
    ),
    "haystack": (
        "milvus-haystack==0.1.0",
        "haystack-ai==3.4.1",
        "docstring-parser==0.18.0",
        "jiter==0.19.0",
        "lazy-imports==1.2.0",
        "openai==3.57.0",
        "posthog==7.91.1",
    ),
}


def install(framework: str) -> Path:
    """The directory with the store of a framework of `STORES`.

    Raises:
        ServerError: pip could not install the packages.
    """
    packages = STORES[framework]
    name = f"{packages[0].replace('==', '-')}-{zlib.crc32(' '.join(packages).encode()):08x}"
    return installed(name, lambda directory: fetch(packages[0], directory, *packages))
