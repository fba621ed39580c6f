"""Milvus's own index types that can be compared: build parameters and settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alula.errors import UsageError
from alula.evaluation.settings import Settings
from alula.index_types import read_factory

Params = dict[str, Any]
FAISS = "FAISS"  # the type of a factory string, which has no default
FACTORY = "faiss_index_name"
# Refining keeps a second, finer code of each row, by which the best by the first are ranked again.
_REFINED = {"refine": True, "refine_type": "SQ8"}
_REFINE_FACTORS = (1, 4)  # rows that are ranked again, for each result


@dataclass(frozen=True)
class NativeType:
    """One of Milvus's own index types.

    Args:
        build: (rows, dim) -> default build parameters.
        sweep: (build parameters, results per query) -> search parameters to try, from the fastest to the best recall.
        words: Build parameters that are words, with those that Milvus knows.
    """

    build: Callable[[int, int], Params]
    sweep: Callable[[Params, int], list[Settings]]
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def _nlist(rows: int, _: int) -> Params:
    return {"nlist": int(min(65536, max(1, 4 * rows**0.5)))}


def _parts(dim: int) -> int:
    # a byte encodes two to four dimensions, as Milvus's documentation recommends
    return next(m for m in (dim // 4, dim // 2, dim) if m and dim % m == 0)


def _pq(rows: int, dim: int) -> Params:
    return {**_nlist(rows, dim), "m": _parts(dim), "nbits": 8}


def _rabitq(rows: int, dim: int) -> Params:
    return {**_nlist(rows, dim), **_REFINED}


def _graph(_: int, __: int) -> Params:
    return {"M": 16, "efConstruction": 200}


def _graph_sq(rows: int, dim: int) -> Params:
    return {**_graph(rows, dim), "sq_type": "SQ8"}


def _graph_pq(rows: int, dim: int) -> Params:
    return {**_graph(rows, dim), "m": _parts(dim), "nbits": 8, **_REFINED}


def _graph_prq(rows: int, dim: int) -> Params:
    return {**_graph_pq(rows, dim), "nrq": 2}


def _probes(params: Params, _: int) -> list[Settings]:
    most = int(params["nlist"])
    return [{"nprobe": n} for n in (1, 4, 8, 16, 32, 64, 128, 256) if n <= most]


def _scann_probes(params: Params, limit: int) -> list[Settings]:
    # without reorder_k as many rows are scored exactly as are returned, and its 4-bit codes decide alone
    return [{**setting, "reorder_k": 10 * limit} for setting in _probes(params, limit)]


def _ef(_: Params, limit: int) -> list[Settings]:
    return [{"ef": ef} for ef in sorted({max(ef, limit) for ef in (16, 32, 64, 128, 256, 512)})]


def _search_lists(_: Params, limit: int) -> list[Settings]:
    return [{"search_list": n} for n in sorted({max(n, limit) for n in (16, 32, 64, 128, 256)})]


def _refined(sweep: Callable[[Params, int], list[Settings]]) -> Callable[[Params, int], list[Settings]]:
    """A sweep with each factor of refining, for an index that refines."""

    def settings(params: Params, limit: int) -> list[Settings]:
        found = sweep(params, limit)
        return _with_factors("refine_k", found) if params.get("refine") else found

    return settings


def _with_factors(name: str, settings: list[Settings]) -> list[Settings]:
    return [{**setting, name: factor} for setting in settings for factor in _REFINE_FACTORS]


def _faiss(params: Params, limit: int) -> list[Settings]:
    """The parameters of a factory string's outermost index; others are refused."""
    factory = read_factory(params[FACTORY], dim=1)
    found: list[Settings] = [{}]
    if factory.lists:
        found = _probes({"nlist": factory.lists}, limit)
    elif factory.links:
        found = [{"efSearch": one["ef"]} for one in _ef(params, limit)]
    return _with_factors("k_factor", found) if factory.refines else found


_PRECISIONS = ("SQ6", "SQ8", "FP16", "BF16", "FP32")
_REFINING = {"refine": ("true", "false"), "refine_type": _PRECISIONS}
NATIVE: Mapping[str, NativeType] = {
    "FLAT": NativeType(lambda _, __: {}, lambda _, __: [{}]),
    "HNSW": NativeType(_graph, _ef),
    "IVF_FLAT": NativeType(_nlist, _probes),
    "IVF_SQ8": NativeType(_nlist, _probes),
    "IVF_PQ": NativeType(_pq, _probes),
    "SCANN": NativeType(_nlist, _scann_probes),
    "IVF_RABITQ": NativeType(_rabitq, _refined(_probes), _REFINING),
    "HNSW_SQ": NativeType(_graph_sq, _refined(_ef), {"sq_type": ("SQ4U", "SQ6", "SQ8", "BF16", "FP16"), **_REFINING}),
    "HNSW_PQ": NativeType(_graph_pq, _refined(_ef), _REFINING),
    "HNSW_PRQ": NativeType(_graph_prq, _refined(_ef), _REFINING),
    "DISKANN": NativeType(lambda _, __: {}, _search_lists),
    FAISS: NativeType(lambda _, __: {}, _faiss),
}


def native_name(index_type: str, params: Params) -> str:
    """An index type with its build parameters, in words."""
    return " ".join((index_type, *(f"{key}={value}" for key, value in params.items())))


def parse_natives(text: str) -> list[tuple[str, Params]]:
    """Read types with commas between; a factory string, which has them too, is last."""
    return [parse_native(word) for word in re.findall(rf"(?:^|,)(\s*{FAISS}:.*|[^,]*)", text, re.IGNORECASE)]


def parse_native(text: str) -> tuple[str, Params]:
    """Read one index type, with build parameters or a factory string if any.

    Args:
        text: ``HNSW``, ``HNSW_SQ:M=32:sq_type=SQ4U`` or ``FAISS:IVF1024,PQ48x4fs``.

    Raises:
        UsageError: If the index type or the word of a parameter is unknown, a parameter has no number, or FAISS no
            factory string.
    """
    name, *given = text.strip().split(":")
    name = name.upper()
    if name not in NATIVE:
        raise UsageError(
            f"{text!r} is not an index type of Milvus that can be compared; choose of {', '.join(NATIVE)}."
        )
    params: Params = {}
    if name == FAISS:
        factory, *given = given or [""]
        if not factory:
            raise UsageError(f"FAISS needs a factory string of faiss, e.g. {FAISS}:IVF1024,PQ48x4fs,RFlat.")
        params = {FACTORY: factory}
    return name, params | dict(_parameter(pair, text, NATIVE[name].words) for pair in given)


def _parameter(pair: str, text: str, words: Mapping[str, tuple[str, ...]]) -> tuple[str, Any]:
    key, _, value = pair.partition("=")
    if key in words:
        known = next((word for word in words[key] if word.lower() == value.lower()), None)
        if known is None:
            raise UsageError(f"{pair!r} in {text!r}: {key} is one of {', '.join(words[key])}.")
        return key, known == "true" if known in ("true", "false") else known
    if not key or not value.isdecimal() or not int(value):
        raise UsageError(
            f"{pair!r} in {text!r} is not a build parameter NAME=NUMBER with a number from 1 on, e.g. HNSW:M=32."
        )
    return key, int(value)
