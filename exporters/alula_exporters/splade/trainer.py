"""Fine-tune a SPLADE model on pairs of texts, at a requested search cost.

SPLADE (Formal et al., SIGIR 2021, arXiv:2107.05720 and 2109.10086): in-batch negatives, a teacher's margins where it
scored the documents, and the FLOPs regulariser on rows and queries with different weights. In the place of the paper's
fixed weights a closed loop finds the one at which a query costs the requested FLOPs; a shift of the bias does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alula.errors import UsageError
from alula.progress import Progress, silent
from alula_exporters.checkpoint import Checkpoint, GeneratorState
from alula_exporters.flops.losses import FlopsController, flops_regulariser
from alula_exporters.sampling import ShuffledBatches
from alula_exporters.sparse_checkpoints import SparseModel
from alula_exporters.splade.config import SpladeConfig
from alula_exporters.splade.losses import in_batch_loss, margin_loss
from alula_exporters.splade.pairs import Pairs, Query
from alula_exporters.splade.sides import Sides
from alula_exporters.training import Figures, TrainingStage, fit, reproducible, warmed_up_cosine

_STAGE = "splade"
_START = 1e-3  # lambda at the first step
_ROWS = 2_000  # documents that held-out queries are judged with
_QUERIES, _DOCUMENTS = 500, 2_000  # that the last shift is found with
_CUT = 10


def train_splade(
    sparse: SparseModel,
    pairs: Pairs,
    config: SpladeConfig,
    *,
    progress: Progress = silent,
    checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:
    """Fine-tune a model in place.

    Args:
        sparse: A SPLADE model, which may have a table of token weights for queries.
        pairs: From `read_pairs`.
        config: Options.
        progress: Called after every step.
        checkpoint: Checkpoint to resume from and to write to.

    Returns:
        The training summary for `alula_exporters.sparse_checkpoints.export_sparse_model`, with the quality on held-out
        queries before and after.

    Raises:
        UsageError: If the model is not SPLADE with the inner product.
        AlulaError: If training diverges.
    """
    if sparse.csr or sparse.metric != "IP":
        raise UsageError(
            "Only a SPLADE model (SpladePooling) that compares by the inner product is fine-tuned on texts; this one "
            + ("is a CSR model." if sparse.csr else "compares by 'cosine'; set its similarity_fn_name to 'dot'.")
        )
    with reproducible(config.seed) as generator:
        sides = Sides(sparse, config.max_nnz)
        before = _judge(sides, pairs)
        budget = before["flops"] if config.flops is None else config.flops
        last = _optimise(sides, pairs, config, budget, generator, progress=progress, checkpoint=checkpoint)
        _meet_budget(sides, pairs, budget, generator)
        after = _judge(sides, pairs)
    sparse.model.cpu().eval()
    return {
        "rows": sum(len(query.documents) for query in pairs.train),
        "total_rows": pairs.total,
        "fingerprint": pairs.fingerprint,
        "seed": config.seed,
        "recipe": config.recipe(),
        **last,
        "flops_requested": budget,
        "flops_achieved": after["flops"],
        "nnz_mean": after["nnz"],
        "query_nnz_mean": after["query nnz"],
        "before": {name: before[name] for name in ("flops", "nnz", "query nnz")},
        "quality": {
            "queries": len(pairs.held_out),
            "rows": after["rows"],
            f"MRR@{_CUT}": after["MRR"],
            f"MRR@{_CUT} before": before["MRR"],
        },
    }


def _optimise(
    sides: Sides,
    pairs: Pairs,
    config: SpladeConfig,
    budget: float,
    generator: torch.Generator,
    *,
    progress: Progress,
    checkpoint: Checkpoint | None,
) -> Figures:
    distillation = _Margins(pairs.train) if pairs.scored else None
    modules = nn.ModuleDict({"sides": sides} if distillation is None else {"sides": sides, "margins": distillation})
    parameters = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
    controller = FlopsController(budget, config.steps, _START)
    batches = ShuffledBatches(len(pairs.train), config.batch, generator)
    last = Figures()
    stage = TrainingStage(
        name=_STAGE,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmed_up_cosine(step, config.steps, config.warm_up * config.steps)
        ),
        steps=config.steps,
        clip=config.clip,
        state={
            "modules": modules,
            "controller": controller,
            "batches": batches,
            "generator": GeneratorState(generator),
            "last": last,
        },
    )
    query_weight = 0.0 if sides.has_table else config.query_weight

    def step(_: int) -> tuple[Tensor, Mapping[str, float]]:
        batch = _Batch.draw([pairs.train[int(i)] for i in batches.draw()], generator)
        queries, rows = sides.queries([query.text for query in batch.queries]), sides.rows(batch.documents)
        own = batch.own.to(rows.device)
        scores = queries @ rows.T
        loss = in_batch_loss(scores, own)
        if distillation is not None:
            loss = loss + distillation(scores, batch)
        weight = controller.weight(_cost(queries, rows, own))
        last.update(loss=float(loss.detach()), regulariser_weight=weight)
        penalty = flops_regulariser(rows) + query_weight * flops_regulariser(queries)
        nnz = float((rows > 0).sum() / len(rows))
        return loss + weight * penalty, {"loss": last["loss"], "FLOPs": controller.mean, "non-zeros": nnz}

    fit(stage, step, progress=progress, checkpoint=checkpoint)
    return last


class _Batch:
    """Queries and documents of a step.

    Args:
        queries: m queries.
        documents: An answer of each query, then a worse document of each query that has one.
        worse: int64 (m,): the place in ``documents`` of a query's worse document, -1 without one.
        margins: float32 (m,): the teacher's score of the answer less that of the worse document.
    """

    def __init__(self, queries: Sequence[Query], documents: Sequence[str], worse: Tensor, margins: Tensor) -> None:
        self.queries, self.documents, self.worse, self.margins = queries, documents, worse, margins
        known = [set(query.documents) for query in queries]
        self.own = torch.tensor([[text in one for text in documents] for one in known])

    @classmethod
    def draw(cls, queries: Sequence[Query], generator: torch.Generator) -> _Batch:
        """Draw an answer of each query, and a document that a teacher ranks lower."""

        def pick(count: int) -> int:
            return int(torch.randint(count, (1,), generator=generator))

        documents = [query.answers[pick(len(query.answers))] for query in queries]
        worse, margins = torch.full((len(queries),), -1), torch.zeros(len(queries))
        for i, query in enumerate(queries):
            if query.scores is not None and len(query.scores) > 1:
                other = 1 + pick(len(query.scores) - 1)
                worse[i], margins[i] = len(documents), query.scores[0] - query.scores[other]
                documents.append(query.documents[other])
        return cls(queries, documents, worse, margins)


class _Margins(nn.Module):
    """The loss on a teacher's margins, in units of their root mean square.

    A teacher's scores may be cosines or logits, and a sparse model's are sums of products: a learned scale brings these
    to the same unit.

    Args:
        queries: All queries of training.
    """

    def __init__(self, queries: Sequence[Query]) -> None:
        super().__init__()
        margins = [query.scores[0] - score for query in queries if query.scores for score in query.scores[1:]]
        self._unit = float(np.sqrt(np.mean(np.square(margins)))) or 1.0
        self.log_scale = nn.Parameter(torch.tensor(-2.0))

    def forward(self, scores: Tensor, batch: _Batch) -> Tensor:
        """The loss of a batch with its scores, float32 (m, n), a scalar."""
        places = torch.nonzero(batch.worse >= 0).flatten()
        if not len(places):
            return 0 * self.log_scale
        student = scores[places, places] - scores[places, batch.worse[places]]
        return margin_loss(self.log_scale.exp() * student, (batch.margins[places] / self._unit).to(scores.device))


def _cost(queries: Tensor, rows: Tensor, own: Tensor) -> float:
    """F: dimensions that a query and another query's document have in common."""
    common = (queries.detach() > 0).float() @ (rows.detach() > 0).float().T
    return float(common[~own].mean()) if not own.all() else float(common.mean())


def _meet_budget(sides: Sides, pairs: Pairs, budget: float, generator: torch.Generator) -> None:
    """Shift the bias until held-out queries cost the budget with any of the documents.

    Queries that training has seen cost less than others, and so do the documents that answer them.
    """
    queries = [query.text for query in (*pairs.held_out, *pairs.train)][:_QUERIES]
    documents = _documents(pairs.train)
    picked = torch.randperm(len(documents), generator=generator)[:_DOCUMENTS]
    sides.meet_budget(queries, [documents[int(i)] for i in picked], budget)


def _documents(queries: Sequence[Query]) -> list[str]:
    """The documents of queries, each once, in the order of the queries."""
    return list(dict.fromkeys(text for query in queries for text in query.documents))


def _judge(sides: Sides, pairs: Pairs) -> dict[str, Any]:
    """Cost, non-zeros and reciprocal rank of the first answer, on held-out queries."""
    most = max(_ROWS, len(_documents(pairs.held_out)))
    documents = _documents([*pairs.held_out, *pairs.train])[:most]
    places = {text: i for i, text in enumerate(documents)}
    queries, rows = sides.encode([query.text for query in pairs.held_out], queries=True), sides.encode(documents)
    scores = (queries @ rows.T).toarray()
    reciprocal = []
    for query, found in zip(pairs.held_out, scores, strict=True):
        answers = [places[text] for text in query.answers]
        best = found[answers].max()
        found[answers] = -np.inf
        rank = 1 + int((found >= best).sum())  # a tie counts against the answer: without any weight it is not found
        reciprocal.append(1 / rank if rank <= _CUT else 0.0)
    used = [np.bincount(side.indices, minlength=side.shape[1]).astype(np.float64) for side in (queries, rows)]
    return {
        "rows": len(documents),
        "MRR": float(np.mean(reciprocal)),
        "flops": float(used[0] @ used[1]) / (len(pairs.held_out) * len(documents)),
        "nnz": rows.nnz / len(documents),
        "query nnz": queries.nnz / len(pairs.held_out),
    }
