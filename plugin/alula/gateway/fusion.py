"""Rank fusion of hybrid searches: reciprocal ranks or weighted scores.

Reciprocal rank fusion (Cormack et al., SIGIR 2009) gives a row the sum of ``1 / (k + rank)`` over the rankings that
hold it. The weighted fusion sums ``weight * score``, each score first brought into [0, 1] by what its metric is:
``(1 + s) / 2`` for COSINE, ``1/2 + atan(s) / pi`` for IP, ``2 atan(s) / pi`` for BM25, and ``1 - 2 atan(s) / pi`` for
distances. All sums are float32, and rows of equal score come by their ids, as in Milvus.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from alula.encoders.metric import better_is_larger
from alula.errors import UsageError
from alula.index_types import MAX_RESULTS
from alula.search import RankedIds, check_limit

F32 = npt.NDArray[np.float32]

DEFAULT_K = 60.0
MAX_SEARCHES = 1024


@dataclass(frozen=True)
class Fusion:
    """The fusion of the rankings of a hybrid search.

    Args:
        strategy: ``rrf`` or ``weighted``.
        limit: Results per query.
        offset: Results to leave out at the start.
        round_decimal: Decimals of the fused scores; -1 for all.
        k: ``rrf``: what is added to each rank.
        weights: ``weighted``: one per sub-search, each from 0 to 1.
        normalised: ``weighted``: True to map scores to [0, 1] first.
    """

    strategy: Literal["rrf", "weighted"]
    limit: int
    offset: int = 0
    round_decimal: int = -1
    k: float = DEFAULT_K
    weights: tuple[float, ...] = ()
    normalised: bool = True

    def fuse(self, rankings: Sequence[RankedIds], metrics: Sequence[str]) -> RankedIds:
        """The rankings of one query as one.

        Args:
            rankings: One per sub-search, best first, with scores as Milvus reports them.
            metrics: The metric of each sub-search.
        """
        mixed = len({better_is_larger(metric) for metric in metrics}) > 1
        parts = [self._parts(i, ranking.scores, metrics[i], mixed) for i, ranking in enumerate(rankings)]
        kind = object if any(isinstance(id_, str) for ranking in rankings for id_ in ranking.ids[:1]) else np.int64
        ids = np.concatenate([np.asarray(ranking.ids, kind) for ranking in rankings])
        distinct, places = np.unique(ids, return_inverse=True)
        scores = np.zeros(len(distinct), np.float32)
        np.add.at(scores, places, np.concatenate(parts))
        ascending = self.strategy == "weighted" and not (self.normalised or mixed or better_is_larger(metrics[0]))
        order = np.argsort(scores if ascending else -scores, kind="stable")[self.offset : self.offset + self.limit]
        return RankedIds(distinct[order].tolist(), self._rounded(scores[order]), exact=False)

    def _parts(self, i: int, scores: F32, metric: str, mixed: bool) -> F32:
        """The summand of each row of the i-th ranking in its fused score."""
        if self.strategy == "rrf":
            ranks = np.arange(1, len(scores) + 1, dtype=np.float32)
            return cast(F32, np.float32(1) / (np.float32(self.k) + ranks))
        if self.normalised or (mixed and not better_is_larger(metric)):
            scores = normalise(scores, metric)
        return cast(F32, np.float32(self.weights[i]) * scores)

    def _rounded(self, scores: F32) -> F32:
        if self.round_decimal < 0:
            return scores
        factor = 10.0**self.round_decimal
        return (np.floor(scores.astype(np.float64) * factor + 0.5) / factor).astype(np.float32)


def normalise(scores: F32, metric: str) -> F32:
    """Map scores to numbers from 0 to 1, larger is better: float32 (n,)."""
    if metric.upper() == "COSINE":
        return cast(F32, (np.float32(1) + scores) * np.float32(0.5))
    angles = np.arctan(scores.astype(np.float64)).astype(np.float32)
    pi = np.float32(np.pi)
    if metric.upper() == "IP":
        return cast(F32, np.float32(0.5) + angles / pi)
    return cast(F32, 2 * angles / pi if metric.upper() == "BM25" else np.float32(1) - 2 * angles / pi)


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
