"""Which settings of an index type to try: for an evaluation, and for a search of the cheapest."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from alula.collection import Collection
from alula.errors import UsageError
from alula.index_types import MAX_RESULTS

Settings = dict[str, Any]
_STEPS = (1, 1.5, 2, 3, 5, 7)  # of candidates, in each power of ten


def show_settings(settings: Mapping[str, Any]) -> str:
    """A setting in words."""
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "no options"


def as_options(settings: Mapping[str, Any]) -> str:
    """A setting as options of ``alula search``."""
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())


def given_sweep(collection: Collection, given: Mapping[str, Sequence[Any]]) -> list[Settings]:
    """Every combination of the values that the user gave.

    Raises:
        UsageError: If the index type has no such option.
    """
    known = {option.name for option in collection.index_type.all_search_options}
    unknown = sorted(set(given) - known)
    if unknown:
        kind = collection.index_type.name
        raise UsageError(f"{kind} has no search option {', '.join(unknown)}; it has: {', '.join(sorted(known))}.")
    combined = itertools.product(*given.values())
    return [
        {name: value for name, value in zip(given, values, strict=True) if value is not None} for values in combined
    ]


def default_sweep(collection: Collection, limit: int, rows: int) -> list[Settings]:
    """What shows a collection from its fastest to its best: about a dozen settings.

    Args:
        collection: The collection.
        limit: Results per query.
        rows: Rows in it.
    """
    options = {option.name for option in collection.index_type.search_options}
    if "candidates" not in options:
        return [{}]
    most = min(MAX_RESULTS, rows)
    ladder = sorted({min(max(limit, c), most) for c in (limit, 50, 100, 200, 500, 1000, 2000)})
    found: list[Settings] = []
    for number, branch in enumerate(branches(collection)):
        if number == 0 or "rerank" not in branch:
            found += [{"candidates": count, **branch} for count in ladder]
        elif branch["rerank"] == 0:  # ranked by codes alone: what each length is worth
            found.append({"candidates": min(most, max(1000, limit)), **branch})
    return found


def branches(collection: Collection) -> list[Settings]:
    """The ways to search a collection that differ in kind; along each, more candidates find more and cost more."""
    lowering = collection.lowering
    info = lowering.encoder.info
    options = {option.name for option in collection.index_type.search_options}
    exact = lowering.field.storage != "dropped"
    found: list[Settings] = [{}] if exact or "bits" not in options else []
    if "terms" in options:
        found += [{"terms": terms} for terms in sorted({info.max_nnz // 2, info.max_nnz // 4} - {0}, reverse=True)]
    if "bits" in options:
        # powers of two and the longest: what every layout holds
        lengths = sorted({8 << n for n in range(16) if 8 << n < info.max_bits} | {info.max_bits}, reverse=True)[:5]
        if exact:
            found += [{"rerank": count} for count in (30, 100)]
        found += [{"bits": bits, "rerank": 0} for bits in lengths]
    if "nprobe" in options and lowering.settings.get("binary_index") == "BIN_IVF_FLAT":
        found = [{**branch, "nprobe": nprobe} for branch in found for nprobe in (16, 64, 256)]
    return found


def candidates_ladder(limit: int, rows: int) -> list[int]:
    """Numbers of candidates to try, each about 1.5 times the one before, from what is wanted to what Milvus gives."""
    most = min(MAX_RESULTS, rows)
    steps = {int(step * 10**power) for power in range(1, 5) for step in _STEPS}
    return sorted({limit, most, *(step for step in steps if limit < step < most)})
