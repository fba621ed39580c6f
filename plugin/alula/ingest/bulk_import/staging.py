"""The staging area of a bulk import, from which the server reads files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from alula.errors import ServerError, UsageError


class StagingArea:
    """The folder of one load in the staging area.

    Args:
        url: A folder (``/data/milvus/import``), or any URL that fsspec knows (``s3://bucket/prefix``).
        at_server: The same folder as the server names it. If None: the absolute path of a folder; of a bucket, the key
            without the bucket, because Milvus imports from the bucket that stores its own data.
        folder: Name of the load's own folder, created with the first file.
        options: Options of fsspec for the URL, e.g. ``endpoint_url`` of an S3.

    Raises:
        UsageError: If the URL cannot be opened.
    """

    def __init__(self, url: str, at_server: str | None, folder: str, options: Mapping[str, Any]) -> None:
        self.url = url
        try:
            self._files, root = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise UsageError(f"The stage {url!r} cannot be opened: {error}.") from error
        self._local = isinstance(self._files, LocalFileSystem)
        if at_server is None:
            at_server = root if self._local else root.partition("/")[2]
        self._root = f"{root.rstrip('/')}/{folder}"
        self.at_server = f"{at_server.rstrip('/')}/{folder}".lstrip("" if self._local else "/")

    def upload(self, path: Path, name: str) -> str:
        """Upload a local file; returns its name as the server reads it."""
        with self._errors(f"write {name!r} to"):
            if self._local:  # object stores create folders with their files
                self._files.makedirs(self._root, exist_ok=True)
            self._files.put_file(str(path), self._path(name))
        return f"{self.at_server}/{name}"

    def copy(self, old: str, new: str) -> str:
        """Copy a file; returns the new name as the server reads it."""
        with self._errors(f"copy {old!r} in"):
            self._files.copy(self._path(old), self._path(new))
        return f"{self.at_server}/{new}"

    def column(self, name: str, column: str) -> pa.ChunkedArray:
        """One column of a file."""
        with self._errors(f"read {name!r} in"), self._files.open(self._path(name), "rb") as file:
            return pq.read_table(file, columns=[column])[column]

    def keep_of(self, prefix: str, kept: str) -> None:
        """Remove the files whose names begin with the prefix, all but one."""
        with self._errors("remove files from"):
            self._files.invalidate_cache()
            for path in self._files.ls(self._root, detail=False):
                name = PurePosixPath(path).name
                if name.startswith(prefix) and name != kept:
                    self._files.rm_file(self._path(name))

    def remove(self) -> None:
        """Remove the load's folder with all its files."""
        with self._errors("remove files from"):
            self._files.invalidate_cache()
            if self._files.exists(self._root):
                self._files.rm(self._root, recursive=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ServerError(
                f"Could not {action} the stage {self.url}: {error} is not there; a resumed load needs its "
                "earlier files. If they are lost, drop the collection, create it and load it again."
            ) from error
        except Exception as error:  # every kind of store raises its own
            raise ServerError(f"Could not {action} the stage {self.url}: {error}.") from error
