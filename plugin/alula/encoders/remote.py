"""Encoder files at URLs, copied into a cache of this machine."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path, PurePosixPath

from alula.encoders.contract import MAX_FILE_BYTES
from alula.errors import EncoderError


def local_copy(place: str | Path) -> Path:
    """The path of an encoder file on this machine.

    A file at a URL that fsspec knows is copied into ``alula/encoders`` of the user's cache folder (``XDG_CACHE_HOME``,
    by default ``~/.cache``), and again when it has changed there.

    Args:
        place: A path, or a URL: ``hf://`` (with the package huggingface_hub), ``s3://``, ``gs://``, ``https://``...

    Raises:
        EncoderError: If the URL cannot be read.
    """
    if not isinstance(place, str) or "://" not in place:
        return Path(place)
    import fsspec.core  # noqa: PLC0415 (most encoders are local)

    try:
        system, path = fsspec.core.url_to_fs(place)
        size = system.size(path)
        if size is not None and size > MAX_FILE_BYTES:
            raise EncoderError(f"Cannot use the encoder {place}: it is larger than 2 GiB, which no encoder can be.")
        version = hashlib.sha256(f"{place} {system.ukey(path)}".encode()).hexdigest()
        copy = _cache() / version[:16] / (PurePosixPath(path).name or "encoder.onnx")
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
                fetched = Path(folder) / copy.name
                system.get_file(path, str(fetched))
                fetched.replace(copy)
    except EncoderError:
        raise
    except FileNotFoundError:
        raise EncoderError(f"Cannot use the encoder {place}: there is no such file.") from None
    except Exception as error:  # each file system has its own
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise EncoderError(f"Cannot use the encoder {place}: it cannot be read ({reason}).") from None
    return copy


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alula" / "encoders"
