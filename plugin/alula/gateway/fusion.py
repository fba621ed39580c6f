"""Read the rank fusion that a hybrid search asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from alula.errors import UsageError
from alula.index_types import MAX_RESULTS
from alula.search import check_limit
from alula.search.fusion import DEFAULT_K, Fusion

MAX_SEARCHES = 1024


def read(request: milvus_pb2.HybridSearchRequest) -> Fusion:
    """Read the fusion of a hybrid search: ``strategy`` and ``params``, or a function.

    Functions are the rerank functions of Milvus 2.6. The default is reciprocal rank fusion with k = 60, as in Milvus.

    Raises:
        UsageError: If it is another one than ``rrf`` and ``weighted``, or its parameters are wrong.
    """
    if not 1 <= len(request.requests) <= MAX_SEARCHES:
        raise UsageError(f"The hybrid search holds {len(request.requests)} searches; Milvus takes 1 to {MAX_SEARCHES}.")
    given = {pair.key: pair.value for pair in request.rank_params}
    if getattr(request, "function_chains", None):  # older pymilvus's messages have none
        raise UsageError("A hybrid search on an index type of Alula takes no function chains; leave them out.")
    grouped = [name for name in ("group_by_field", "group_size", "rank_group_scorer") if given.get(name)]
    if grouped:
        raise UsageError(f"A hybrid search on an index type of Alula takes no {', '.join(grouped)}; leave it out.")
    functions = request.function_score.functions
    if functions:
        strategy, params, normalised = *_of_function(functions), False
    else:
        strategy, params, normalised = *_of_rank_params(given), True
    limit, offset = _whole(given, "limit", None), _whole(given, "offset", 0)
    check_limit(limit, offset)
    decimals = _whole(given, "round_decimal", -1)
    if not -1 <= decimals <= 6:
        raise UsageError(f"round_decimal is {decimals}, and must be between -1 (all decimals) and 6.")
    if strategy == "rrf":
        return Fusion("rrf", limit, offset, decimals, k=_k(params.get("k", DEFAULT_K)))
    if strategy != "weighted":
        raise UsageError(
            f"The hybrid search asks for the ranker {strategy!r}, and on an index type of Alula there are 'rrf' and "
            "'weighted'."
        )
    weights = _weights(params.get("weights"), len(request.requests))
    normalised = _truth(params.get("norm_score", normalised))
    return Fusion("weighted", limit, offset, decimals, weights=weights, normalised=normalised)


def _of_rank_params(given: Mapping[str, str]) -> tuple[str, Mapping[str, Any]]:
    params = _parsed(given.get("params") or "{}")
    if not isinstance(params, dict):
        raise UsageError(f"The params of the hybrid search's ranker are {params!r}, and a JSON object is needed.")
    return str(_parsed(given.get("strategy") or "rrf")).lower(), params


def _of_function(functions: Sequence[schema_pb2.FunctionSchema]) -> tuple[str, Mapping[str, Any]]:
    if len(functions) > 1:
        raise UsageError(f"The hybrid search has {len(functions)} rerank functions, and Milvus takes one.")
    params = {pair.key.lower(): _parsed(pair.value) for pair in functions[0].params}
    return str(params.get("reranker", "")).lower(), params


def _parsed(text: str) -> Any:
    """A parameter's value, parsed if it is JSON: some clients quote texts."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _whole(given: Mapping[str, str], name: str, default: int | None) -> int:
    text = given.get(name, default)
    try:
        return int(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UsageError(f"The hybrid search's {name} is {text!r}, and a whole number is needed.") from None


def _k(k: Any) -> float:
    if isinstance(k, bool) or not isinstance(k, int | float) or not 0 < k < MAX_RESULTS:
        raise UsageError(f"The k of the ranker 'rrf' is {k!r}, and must be a number above 0 and under {MAX_RESULTS}.")
    return float(k)


def _weights(weights: Any, count: int) -> tuple[float, ...]:
    numbers = isinstance(weights, list) and all(
        isinstance(weight, int | float) and not isinstance(weight, bool) and 0 <= weight <= 1 for weight in weights
    )
    if not numbers or len(weights) != count:
        raise UsageError(
            f"The weights of the ranker 'weighted' must be {count} numbers from 0 to 1, one for each search."
        )
    return tuple(map(float, weights))


def _truth(value: Any) -> bool:
    words = {"true": True, "false": False}
    if str(value).lower() not in words:
        raise UsageError(f"norm_score is {value!r}, and must be true or false.")
    return words[str(value).lower()]
