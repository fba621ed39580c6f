"""Find and open files by paths, globs, folders and URLs, through fsspec."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast
from urllib.parse import urlsplit

import fsspec.core
import pyarrow as pa
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from alula.errors import AlulaError, DataError, UsageError

Place = str | os.PathLike[str]
Places = Place | Sequence[Place]

_BLOCK = 1 << 20
_HASHED = 64  # files whose content is part of a fingerprint
_LOCAL_ERRORS = (pa.ArrowException, OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile)
_EXTRAS = {"s3": "s3", "s3a": "s3"}  # by protocol, the extra of Alula that brings what fsspec needs


@dataclass(frozen=True)
class File:
    """One file, wherever it lies.

    Args:
        name: As a user would write it.
        system: Its file system.
        path: Its path there.
        size: In bytes; None if unknown.
        stamp: An entity tag or a time of change, which changes with the content.
    """

    name: str
    system: AbstractFileSystem
    path: str
    size: int | None
    stamp: str

    @property
    def local(self) -> Path | None:
        """The path on this machine, None for a file elsewhere."""
        return Path(self.path) if isinstance(self.system, LocalFileSystem) else None

    @property
    def ending(self) -> str:
        """The ending in small letters: ``.parquet``, ``.csv.gz``."""
        pure = PurePosixPath(urlsplit(self.path).path if "://" in self.path else self.path)
        ends = pure.suffixes[-2:] if pure.suffix == ".gz" else pure.suffixes[-1:]
        return "".join(ends).lower()

    def open(self) -> IO[bytes]:
        """The content from its beginning, unpacked if it is a ``.gz``."""
        local = self.local
        file = local.open("rb") if local else io.BufferedReader(self.system.open(self.path, "rb"), _BLOCK)
        return cast(IO[bytes], gzip.GzipFile(fileobj=file)) if self.ending.endswith(".gz") else file

    @contextmanager
    def reading(self, failed: str) -> Iterator[None]:
        """Turn whatever goes wrong while the file is read into a `DataError`.

        Args:
            failed: The failure, in words that continue "The file NAME".
        """
        try:
            yield
        except AlulaError:
            raise
        except Exception as error:
            if not _is_failure(error, self.system):
                raise
            raise DataError(f"The file {self.name} {failed} ({first_line(error)}).") from None


def _is_failure(error: Exception, system: AbstractFileSystem) -> bool:
    """True for errors of a file or its store; remote stores raise any type."""
    return isinstance(error, _LOCAL_ERRORS) or not isinstance(system, LocalFileSystem)


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not text in UTF-8: {error.reason}"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def find_files(places: Places) -> tuple[str, list[File]]:
    """The files at some places, sorted by name, and a name for all of them.

    Args:
        places: A path, a glob, a folder (which is searched with its sub-folders; what begins with a dot or an
            underscore is passed over), a URL that fsspec knows (``s3://``, ``gs://``, ``https://``, ``memory://``...),
            or several of these.

    Raises:
        UsageError: If there is no such file, or the file system is unknown.
        DataError: If a file system in the network does not answer, or all files are empty.
    """
    given = [places] if isinstance(places, str | os.PathLike) else list(places)
    if not given:
        raise UsageError("No file was given.")
    found = {file.name: file for place in given for file in _at(os.fspath(place))}
    files = [found[name] for name in sorted(found)]
    filled = [file for file in files if file.size != 0]
    if not filled:
        raise DataError(f"The file {files[0].name} is empty.")
    name = os.fspath(given[0]) if len(given) == 1 else f"{filled[0].name} and {len(files) - 1} more"
    return name, filled


def fingerprint(files: Sequence[File]) -> str:
    """Hash the files' names, sizes and stamps, then content: ``stamps:content``.

    The second covers the first and the last megabyte of each local file, of at most `_HASHED` files: it changes with
    all but edits in the middle of a large file that keep its size and its time. Elsewhere the stamp (an entity tag)
    stands for the content.
    """
    stamps = sorted((file.path, file.size, file.stamp) for file in files)
    content = hashlib.sha256()
    for file in (*files[: _HASHED // 2], *files[max(_HASHED // 2, len(files) - _HASHED // 2) :]):
        if file.local is not None:
            with file.reading("cannot be read"), file.local.open("rb") as opened:
                content.update(opened.read(_BLOCK))
                opened.seek(max(opened.tell(), (file.size or 0) - _BLOCK))
                content.update(opened.read(_BLOCK))
    return f"{hashlib.sha256(repr(stamps).encode()).hexdigest()}:{content.hexdigest()}"


def _at(place: str) -> list[File]:
    protocol = urlsplit(place).scheme if "://" in place else ""
    try:
        system, path = fsspec.core.url_to_fs(place)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        hint = f"pip install 'alula[{extra}]'" if extra else str(error).rstrip(".")
        raise UsageError(f"Reading {place} needs a package that is not installed: {hint}.") from None
    except ValueError as error:
        raise UsageError(f"{place} cannot be read: {first_line(error)}.") from None
    try:
        return list(_listed(place, system, path))
    except AlulaError:
        raise
    except Exception as error:
        if not _is_failure(error, system):
            raise
        raise DataError(f"{place} cannot be read: {first_line(error)}.") from None


def _listed(place: str, system: AbstractFileSystem, path: str) -> Iterator[File]:
    web = "http" in system.protocol
    try:
        about = system.info(path)
    except FileNotFoundError:
        # the names on a web server cannot be listed, and a question mark there begins a query
        found = {} if web or not set(path) & set("*?[") else system.glob(path, detail=True)
        files = {name: info for name, info in found.items() if info["type"] == "file"}
        if not files:
            raise UsageError(f"There is no file {place}.") from None
        yield from (_file(system, name, info) for name, info in files.items())
        return
    if about["type"] == "file":
        yield _file(system, path, about, place)
    elif about["type"] == "directory":
        files = {name: info for name, info in system.find(path, detail=True).items() if not _hidden(name, path)}
        if not files:
            raise UsageError(f"There is no file in {place}.")
        yield from (_file(system, name, info) for name, info in files.items())
    else:
        raise UsageError(f"{place} is neither a file nor a folder.")


def _hidden(path: str, folder: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.removeprefix(folder).split("/"))


def _file(system: AbstractFileSystem, path: str, about: Mapping[str, Any], name: str | None = None) -> File:
    if name is None:
        name = path if isinstance(system, LocalFileSystem) else str(system.unstrip_protocol(path))
    keys = ("ETag", "etag", "mtime", "LastModified", "updated", "last_modified", "created")
    stamp = next((str(about[key]) for key in keys if about.get(key)), "")
    return File(name, system, path, about.get("size"), stamp)
