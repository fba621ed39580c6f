"""The stage of a bulk import: the place, under an fsspec URL, where files wait for the server to read them."""

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


class Stage:
    """The folder of one load in the stage.

    Args:
        url: A folder (``/data/milvus/import``), or any URL that fsspec knows (``s3://bucket/prefix``).
        at_server: The same place as the server names it. If None: the absolute path of a folder; of a bucket, the key
            without the bucket, because Milvus imports from the bucket that it keeps its own data in.
        folder: Name of the load's own folder, which is made here.
        options: What fsspec needs to open the URL, e.g. ``endpoint_url`` of an S3.

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
        """Copy a local file into the stage; its name as the server reads it."""
        with self._errors(f"write {name!r} to"):
            if self._local:  # elsewhere folders come into being with their files
                self._files.makedirs(self._root, exist_ok=True)
            self._files.put_file(str(path), self._path(name))
        return f"{self.at_server}/{name}"

    def copy(self, old: str, new: str) -> str:
        """Copy a file within the stage; the new one's name as the server reads it."""
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
        """Remove the load's folder and all that is in it."""
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
                f"Could not {action} the stage {self.url}: {error} is not there; a load that is to go on needs the "
                "files it has put there. If they are lost, drop the collection and load it anew."
            ) from error
        except Exception as error:  # every kind of store raises its own
            raise ServerError(f"Could not {action} the stage {self.url}: {error}.") from error
