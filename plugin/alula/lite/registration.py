"""Register Alula's index types in Milvus Lite 3, and unregister them."""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from alula.errors import AlulaError, DataError, UnsupportedError, UsageError
from alula.lite.index_type import LiteIndexType, local_index_types
from alula.lite.masks import with_known_masks
from alula.lite.segment_index import FailedIndex
from alula.lite.self_test import SelfTest, changed

TESTED_VERSIONS = ("3.2.2",)

NOT_BUILD_PARAMS = frozenset(
    {"index_type", "metric_type", "params", "search_params", "index_name", "field_name", "mmap.enabled"}
)

_log = logging.getLogger("alula.lite")
_lock = threading.Lock()
_replaced: list[tuple[Any, str, Any]] = []  # owner, attribute, original
_registered: dict[str, LiteIndexType | SelfTest] = {}
_call = threading.local()  # .in_foreground: True while an error reaches the client


def register(*, cache_masks: bool = False) -> None:
    """Register the index types in Milvus Lite, for all databases of this process.

    A second call changes nothing but ``cache_masks``. Each process that uses a database registers for itself.

    Args:
        cache_masks: True to also cache the valid rows of each segment (`alula.lite.masks`), for every index type, those
            of Milvus Lite included. Without it, Milvus Lite takes tens of milliseconds to search 100,000 rows, whatever
            the index.

    Raises:
        UnsupportedError: If Milvus Lite is missing, or of an untested version.
    """
    wanted = REPLACED + (KNOWN_MASKS if cache_masks else ())
    with _lock:
        while len(_replaced) > len(wanted):
            setattr(*_replaced.pop())
        if len(_replaced) == len(wanted):
            return
        _check_version()
        _registered.update(local_index_types())
        try:
            _replace(wanted[len(_replaced) :])
            with SelfTest.among(_registered) as test:
                test.run()
        except BaseException:
            _restore()
            raise


def unregister() -> None:
    """Restore Milvus Lite.

    Loaded collections keep their indexes until they are released; rows that are flushed later are searched without one.
    """
    with _lock:
        _restore()


def _check_version() -> None:
    tested = ", ".join(TESTED_VERSIONS)
    try:
        version = metadata.version("milvus-lite")
    except metadata.PackageNotFoundError:
        raise UnsupportedError(
            f"Milvus Lite is not installed; pip install milvus-lite=={TESTED_VERSIONS[-1]}."
        ) from None
    if version not in TESTED_VERSIONS:
        raise UnsupportedError(
            f"Milvus Lite {version} is installed, and alula.lite replaces parts of it that change between versions: it "
            f"works with {tested} only. pip install milvus-lite=={TESTED_VERSIONS[-1]}; or create the collection with "
            "alula.Collection, which replaces nothing."
        )


def _replace(seams: Sequence[tuple[str, str, Callable[[Any], Any]]]) -> None:
    try:
        for module, place, wrap in seams:
            *owner, name = place.split(".")
            where = importlib.import_module(f"milvus_lite.{module}")
            where = getattr(where, owner[0]) if owner else where
            original = getattr(where, name)
            _replaced.append((where, name, original))
            setattr(where, name, functools.wraps(original)(wrap(original)))
    except (ImportError, AttributeError) as error:
        raise changed(str(error)) from error


def _restore() -> None:
    while _replaced:
        setattr(*_replaced.pop())
    _registered.clear()


def _building(original: Callable[..., Any]) -> Callable[..., Any]:
    def build_index_from_spec(spec: Any, vectors: Any) -> Any:
        if spec.index_type not in _registered:
            return original(spec, vectors)
        return _build_or_report(
            spec, len(vectors), vectors.shape[1], lambda kind: kind.build(spec.build_params, vectors)
        )

    return build_index_from_spec


def _loading(original: Callable[..., Any]) -> Callable[..., Any]:
    def load_index_from_spec(spec: Any, path: str, dim: int) -> Any:
        if spec.index_type not in _registered:
            return original(spec, path, dim)
        return _build_or_report(spec, 0, dim, lambda kind: kind.load(spec.build_params, path))

    return load_index_from_spec


def _build_or_report(spec: Any, rows: int, dim: int, make: Callable[[Any], Any]) -> Any:
    """Build an index; in the background, return a `FailedIndex` for an error."""
    try:
        return make(_registered[spec.index_type])
    except Exception as error:  # in the background, Milvus Lite would log it and search without an index
        if getattr(_call, "in_foreground", False):
            raise
        _log.exception("The %s index of the field %r could not be built.", spec.index_type, spec.field_name)
        message = (
            f"The {spec.index_type} index of the field {spec.field_name!r} could not be built: {error} Then release "
            "and load the collection."
        )
        return FailedIndex(spec.index_type, spec.metric_type, rows, dim, message)


def _attaching(original: Callable[..., Any]) -> Callable[..., Any]:
    def attach_index(segment: Any, index: Any, field_name: str | None = None) -> None:
        if hasattr(index, "attach"):
            index.attach(segment.vector_data(field_name or segment._vector_field)[0])
        original(segment, index, field_name)

    return attach_index


def _with_flat_params(original: Callable[..., Any]) -> Callable[..., Any]:
    """Read flat parameters too; Milvus Lite reads only the JSON text ``params``."""

    def kv_pairs_to_index_params_dict(extra_params: Any, *args: Any, **kwargs: Any) -> Any:
        pairs = list(extra_params)
        read = original(pairs, *args, **kwargs)
        if str(read["index_type"]).upper() in _registered:
            flat = {pair.key: pair.value for pair in pairs if pair.key not in NOT_BUILD_PARAMS}
            read["params"] = flat | read["params"]
        return read

    return kv_pairs_to_index_params_dict


def _creating(original: Callable[..., Any]) -> Callable[..., Any]:
    def create_index(collection: Any, field_name: str, index_params: Mapping[str, Any]) -> None:
        kind = _registered.get(str(index_params["index_type"]).upper())
        if kind is not None:
            with _lite_errors():
                index_params = _checked(kind, collection, field_name, index_params)
        _in_foreground(original)(collection, field_name, index_params)

    return create_index


def _checked(
    kind: LiteIndexType | SelfTest, collection: Any, field_name: str, index_params: Mapping[str, Any]
) -> Mapping[str, Any]:
    field = next((field for field in collection.schema.fields if field.name == field_name), None)
    if field is None:
        return index_params  # Milvus Lite says so itself
    if field.dtype.name != "FLOAT_VECTOR":
        raise UsageError(
            f"The field {field_name!r} is a {field.dtype.name}, and {index_params['index_type']} indexes FLOAT_VECTOR."
        )
    metric, params = kind.check_build(
        field_name, field.dim, index_params.get("metric_type"), dict(index_params.get("params") or {})
    )
    return {**index_params, "metric_type": metric, "params": params}


def _in_foreground(original: Callable[..., Any]) -> Callable[..., Any]:
    """Report the errors of a call to the client."""

    def call_in_foreground(*args: Any, **kwargs: Any) -> Any:
        before, _call.in_foreground = getattr(_call, "in_foreground", False), True
        try:
            with _lite_errors():
                return original(*args, **kwargs)
        finally:
            _call.in_foreground = before

    return call_in_foreground


def _searching(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    def search(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        given = call.arguments
        collection, field = given["self"], given.get("anns_field") or given["self"]._vector_name
        spec = collection._index_specs.get(field)
        if spec is None or spec.index_type not in _registered:
            return original(*args, **kwargs)
        with _lite_errors():
            metric = given.get("metric_type")
            if metric and str(metric).upper() != spec.metric_type:
                raise UsageError(
                    f"The {spec.index_type} index of the field {field!r} has the metric {spec.metric_type}, and the "
                    f"search asks for {metric}; leave metric_type out."
                )
            given["search_params"] = _registered[spec.index_type].check_search(given.get("search_params") or {})
            return original(*call.args, **call.kwargs)

    return search


@contextmanager
def _lite_errors() -> Iterator[None]:
    """Raise Milvus Lite's own errors, which it does not log with a traceback."""
    errors = importlib.import_module("milvus_lite.exceptions")
    try:
        yield
    except (UsageError, DataError) as error:
        raise errors.SchemaValidationError(str(error)) from error
    except AlulaError as error:
        raise errors.IndexBackendUnavailableError(str(error)) from error


REPLACED = (
    ("index.factory", "build_index_from_spec", _building),
    ("index.factory", "load_index_from_spec", _loading),
    ("storage.segment", "Segment.attach_index", _attaching),
    ("adapter.grpc.servicer", "kv_pairs_to_index_params_dict", _with_flat_params),
    ("engine.collection", "Collection.create_index", _creating),
    ("engine.collection", "Collection.load", _in_foreground),
    ("engine.collection", "Collection.search", _searching),
)
KNOWN_MASKS = (("engine.collection", "execute_search_with_index", with_known_masks),)
