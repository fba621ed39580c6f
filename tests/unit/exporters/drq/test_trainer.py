from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from alula.errors import DataError, UsageError
from alula_exporters.backbones import VectorBackbone
from alula_exporters.data import make_training_data
from alula_exporters.drq import DrqConfig, train_drq
from alula_exporters.drq import trainer as trainer_module

from ..conftest import SMALL_DRQ


def test_every_level_lowers_the_distortion(trained_drq):
    distortion = trained_drq.training["distortion"]
    assert len(distortion) == SMALL_DRQ["levels"]
    assert (np.diff(distortion) < 0).all()
    assert distortion[-1] < 0.25 * trained_drq.training["variance"]


def test_training_improves_on_its_start(data, trained_drq, monkeypatch):
    monkeypatch.setattr(trainer_module, "fit", lambda *a, **k: None)
    start = train_drq(data, DrqConfig(metric=trained_drq.model.metric, **SMALL_DRQ))
    assert sum(trained_drq.training["distortion"]) < sum(start.training["distortion"])


def test_rotations_stay_orthogonal(trained_drq):
    for turn in trained_drq.model.turns.flatten(0, 1):
        np.testing.assert_allclose(turn @ turn.T, np.eye(turn.shape[0]), atol=1e-4)


def test_recall_by_code_grows_with_the_code(trained_drq):
    quality = trained_drq.training["quality"]
    assert 0.1 < quality["recall@10 by 32-bit codes"] < quality["recall@10 by 48-bit codes"]


def test_same_seed_same_weights(data):
    config = DrqConfig(**{**SMALL_DRQ, "epochs": 1})
    first, again = (train_drq(data, config) for _ in range(2))
    for left, right in zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    assert first.training == again.training


def test_zero_rows_in_the_data_are_survived(vectors, metric):
    holed = vectors[:1000].copy()
    holed[::10] = 0
    trained = train_drq(make_training_data(holed), DrqConfig(metric=metric, **{**SMALL_DRQ, "epochs": 1}))
    assert all(torch.isfinite(value).all() for value in trained.model.state_dict().values())


def test_one_level(vectors):
    trained = train_drq(make_training_data(vectors), DrqConfig(levels=1, epochs=1, sign_bits=8))
    assert len(trained.training["distortion"]) == 1


def test_too_few_different_rows_are_refused(vectors):
    with pytest.raises(DataError, match="at least 256 are needed"):
        train_drq(make_training_data(np.tile(vectors[:100], (10, 1))), DrqConfig(**SMALL_DRQ))


class NoLoss(nn.Module):
    """A loss of labels that teaches nothing."""

    def forward(self, embeddings, labels):
        return 0 * embeddings.sum()


@pytest.mark.parametrize("mode", ["default", "shared", "paper", "separate"])
def test_a_backbone_learns_from_labels_alone(vectors, mode, monkeypatch):
    """Rows that are moved to their codewords too lose their neighbours."""
    monkeypatch.setattr(trainer_module, "label_loss", lambda *_: NoLoss())
    network = VectorBackbone(nn.Linear(24, 16), 24)
    before = copy.deepcopy(network.state_dict())
    labelled = make_training_data(vectors, np.arange(len(vectors)) % 10)
    train_drq(labelled, DrqConfig(mode=mode, loss="contrastive", **{**SMALL_DRQ, "epochs": 1}), backbone=network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.fixture(scope="module")
def modes(data):
    """The summary of a training in every mode."""
    names = ("default", "shared", "paper", "separate")
    return {mode: train_drq(data, DrqConfig(mode=mode, learning_rate=3e-3, **SMALL_DRQ)).training for mode in names}


@pytest.mark.parametrize("mode", ["shared", "paper", "separate"])
def test_modes_train_repeatably_and_improve_on_their_start(data, modes, mode, monkeypatch):
    # few rows start near their optimum: a lower rate does not leave it
    config, trained = DrqConfig(mode=mode, learning_rate=3e-3, **SMALL_DRQ), modes[mode]
    assert trained == train_drq(data, config).training
    assert (np.diff(trained["distortion"]) < 0).all()
    assert trained["recipe"]["mode"] == mode
    if mode == "paper":
        return  # its soft codes pull the codebook away from the start, which has the least distortion already
    monkeypatch.setattr(trainer_module, "fit", lambda *a, **k: None)
    assert sum(trained["distortion"]) < sum(train_drq(data, config).training["distortion"])


def test_modes_differ_in_what_they_share(modes):
    parameters = {mode: training["parameters"] for mode, training in modes.items()}
    last = {mode: training["distortion"][-1] for mode, training in modes.items()}
    assert parameters["paper"] == parameters["shared"] == 256 * 24 + 5
    assert parameters["shared"] < parameters["default"] < parameters["separate"]
    assert last["paper"] > last["shared"] > last["default"] > last["separate"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": 0}, "levels is 0"),
        ({"levels": 257}, "between 1 and 256"),
        ({"sign_bits": 12}, "multiple of 8"),
        ({"beam": 0}, "beam is 0"),
        ({"mode": "rq"}, "one of default, shared, paper, separate"),
    ],
)
def test_sizes_out_of_range(options, words):
    with pytest.raises(UsageError, match=words):
        DrqConfig(**options)
