from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from alula.errors import UsageError
from alula_exporters import checkpoint
from alula_exporters.checkpoint import Checkpoint
from alula_exporters.sparse_checkpoints import open_sparse_model
from alula_exporters.splade import SpladeConfig, read_pairs, train_splade
from alula_exporters.splade.pairs import Query
from alula_exporters.splade.sides import Sides
from alula_exporters.splade.trainer import _Batch, _cost, _judge

from .texts import write

SHORT = SpladeConfig(steps=200, batch=16, learning_rate=1e-3, flops=10.0)
TABLE = SpladeConfig(steps=150, batch=16, learning_rate=3e-3, flops=1.2)  # a query has few tokens to have in common


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return read_pairs(write(tmp_path_factory.mktemp("pairs") / "pairs.jsonl"))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    return read_pairs(write(tmp_path_factory.mktemp("pairs") / "scored.jsonl", scored=True))


def weights(sparse):
    return torch.cat([tensor.flatten() for tensor in sparse.model.state_dict().values()])


@pytest.mark.parametrize(("name", "config", "least"), [("splade", SHORT, 0.7), ("inference-free", TABLE, 0.0)])
def test_learns_which_words_stand_for_which_at_the_requested_cost(word_models, pairs, name, config, least):
    sparse = open_sparse_model(word_models / name)
    training = train_splade(sparse, pairs, config)
    quality = training["quality"]
    assert quality["MRR@10"] > quality["MRR@10 before"] + 0.2
    assert least * config.flops < training["flops_achieved"] < 1.3 * config.flops
    assert training["before"]["flops"] > 1.3 * config.flops  # so that it had to change
    # what was judged is what the model does now
    again = _judge(Sides(sparse, None), pairs)
    assert (again["MRR"], again["flops"]) == (quality["MRR@10"], training["flops_achieved"])


def test_the_cost_is_met_by_queries_that_training_has_not_seen(word_models, pairs, monkeypatch):
    counted = []
    monkeypatch.setattr(Sides, "meet_budget", lambda _, queries, documents, budget: counted.append(queries))
    train_splade(open_sparse_model(word_models / "splade"), pairs, dataclasses.replace(SHORT, steps=1))
    unseen = [query.text for query in pairs.held_out]
    assert counted[0][: len(unseen)] == unseen


def test_a_teachers_margins_are_learned(word_models, scored):
    def margins(sparse):
        sides = Sides(sparse, None)
        rows = [sides.encode(list(query.documents)) for query in scored.held_out]
        queries = sides.encode([query.text for query in scored.held_out], queries=True)
        found = [(row @ queries[[i]].T).toarray().ravel() for i, row in enumerate(rows)]
        return np.array([one[0] - one[1] for one in found])

    sparse = open_sparse_model(word_models / "splade")
    teacher = np.array([query.scores[0] - query.scores[1] for query in scored.held_out])
    before = np.corrcoef(margins(sparse), teacher)[0, 1]
    train_splade(sparse, scored, SHORT)
    after = margins(sparse)
    assert (after > 0).mean() > 0.9
    assert np.corrcoef(after, teacher)[0, 1] > max(0.5, before + 0.2)


def test_a_killed_run_ends_in_the_same_weights(text_models, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    config = dataclasses.replace(SHORT, steps=12)
    whole, killed, resumed, untrained = (open_sparse_model(text_models / "splade") for _ in range(4))
    train_splade(whole, pairs, config)

    class Killed(Exception):
        pass

    def kill(stage, done, total, figures):
        if done == 8:
            raise Killed

    with pytest.raises(Killed):
        train_splade(killed, pairs, config, progress=kill, checkpoint=Checkpoint(tmp_path / "c", {}))
    steps = []
    train_splade(
        resumed,
        pairs,
        config,
        progress=lambda stage, done, total, figures: steps.append(done),
        checkpoint=Checkpoint(tmp_path / "c", {}),
    )
    assert steps[0] == 8
    assert torch.equal(weights(whole), weights(resumed))
    assert not torch.equal(weights(whole), weights(untrained))


def test_documents_of_a_query_are_never_its_negatives():
    queries = [Query("a", ("x", "y")), Query("b", ("y",)), Query("c", ("z", "w"), (2.0, 0.5))]
    batch = _Batch.draw(queries, torch.Generator().manual_seed(1))
    assert batch.documents[1:] == ["y", "z", "w"]
    own = [[text in query.documents for text in batch.documents] for query in queries]
    assert batch.own.tolist() == own
    assert batch.worse.tolist() == [-1, -1, 3]
    assert batch.margins.tolist() == [0, 0, 1.5]


def test_the_cost_of_a_batch_is_that_of_a_query_with_rows_of_others():
    queries, rows = torch.tensor([[1.0, 0, 2], [0, 3, 0]]), torch.tensor([[1.0, 1, 0], [0, 1, 1]])
    # the first query has dimension 2 in common with the second row, the second one dimension 1 with the first row
    assert _cost(queries, rows, torch.eye(2, dtype=torch.bool)) == 1.0


@pytest.mark.parametrize(
    ("name", "words"), [("csr", "this one is a CSR model"), ("cosine", "set its similarity_fn_name")]
)
def test_models_of_other_kinds_are_refused(text_models, pairs, name, words):
    sparse = open_sparse_model(text_models / ("csr" if name == "csr" else "splade"))
    if name == "cosine":
        sparse = dataclasses.replace(sparse, metric="COSINE")
    with pytest.raises(UsageError, match=words):
        train_splade(sparse, pairs, SHORT)
