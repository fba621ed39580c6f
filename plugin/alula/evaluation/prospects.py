"""DRQ before its encoder exists: sizes by formula, recall by untrained signs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from alula.encoders import Encoder, EncoderInfo, Metric, default_sign_bits
from alula.errors import UnsupportedError
from alula.evaluation.ground_truth import Queries
from alula.evaluation.recall import RecallEstimate
from alula.evaluation.row_source import F32
from alula.evaluation.untrained_signs import sign_recall
from alula.index_types import RowCost, VectorField, check_options, choose_storage, index_type, lowering_cost
from alula.milvus import Server, probe

PROSPECT = "DRQ"  # the index type
KEPT = {True: "vectors kept", False: "vectors dropped"}
_CODE_BYTES = 16  # the default of training
_OVERSAMPLING = (1, 3, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Prospect:
    """An index type of Alula that needs an encoder first.

    Args:
        name: The index type, with its storage.
        sizes: Bytes per row, with the defaults of training.
        estimates: Recall of exact re-ranking of a number of candidates by untrained sign bits, in this process; empty
            where the vectors are dropped.
        enough: The least of these numbers that reaches the target; None if no one does.
    """

    name: str
    sizes: RowCost
    estimates: Mapping[int, RecallEstimate] = field(default_factory=dict)
    enough: int | None = None


def drq_prospects(
    server: Server, vectors: F32, queries: Queries, *, metric: str, target: float, seed: int = 0
) -> tuple[list[Prospect], dict[str, str]]:
    """DRQ with the defaults of training, with the vectors kept and dropped.

    Args:
        server: The server.
        vectors: float32 (n, d): the sample.
        queries: Queries whose true neighbours are numbers of its rows.
        metric: ``COSINE``, ``IP`` or ``L2``.
        target: The recall to reach.
        seed: Seed of the untrained signs.

    Returns:
        The prospects; and the storages that the server cannot have, with the reason.
    """
    kind, capabilities = index_type(PROSPECT), probe(server)
    measure, dim = cast(Metric, metric), vectors.shape[1]
    bits = default_sign_bits(dim)
    info = EncoderInfo("drq", measure, dim, metric == "COSINE", levels=_CODE_BYTES, sign_bits=bits)
    counts = sorted({min(factor * queries.k, len(vectors)) for factor in _OVERSAMPLING})
    recalls = sign_recall(vectors, queries, counts, bits=bits, metric=metric, seed=seed)
    enough = next((n for n, recall in zip(counts, recalls, strict=True) if recall.low >= target), None)
    found, refused = [], {}
    for keep, kept in KEPT.items():
        name = f"{kind.name}, {kept}"
        try:
            settings = kind.choose(capabilities, check_options(kind.create_options, {}, kind.name))
            field = VectorField("vector", dim, measure, choose_storage(keep, capabilities))
        except UnsupportedError as error:
            refused[name] = str(error)
            continue
        lowering = kind.lowering(field, cast(Encoder, _Untrained(info)), settings)
        sizes = lowering_cost(lowering, maps=server.dialect.maps)
        estimates = dict(zip(counts, recalls, strict=True)) if keep else {}
        found.append(Prospect(name, sizes, estimates, enough if keep else None))
    return found, refused


@dataclass(frozen=True)
class _Untrained:
    """The part of an encoder that the sizes of its fields depend on."""

    info: EncoderInfo
