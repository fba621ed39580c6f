"""Labels of rows, one or several: what is read, and which rows are alike."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from alula.errors import DataError, UsageError
from alula_exporters import DrqConfig, FlopsConfig, train_drq, train_flops
from alula_exporters.backbones import VectorBackbone
from alula_exporters.data import load_training_data, make_training_data
from alula_exporters.dense import BackboneConfig, train_backbone
from alula_exporters.labels import MAX_MEMBERSHIPS, alike, read_labels
from alula_exporters.losses import LABEL_LOSSES, class_vectors, label_loss
from alula_exporters.quality import label_quality
from alula_exporters.sampling import BalancedBatches

from .conftest import SMALL_DRQ

TAGS = [["sea", "sky"], ["sky"], [], ["wood"], ["sea", "wood"]]
MEMBERS = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1]], bool)


def as_written(vectors):
    """Random lists of six tags for vectors, and their tags by number."""
    members = np.random.default_rng(3).random((len(vectors), 6)) < 0.25
    return [[f"tag{number}" for number in np.flatnonzero(row)] for row in members], members


def test_lists_of_names_say_which_classes_a_row_has():
    names, members = read_labels(TAGS, 5)
    assert names == ("sea", "sky", "wood")
    np.testing.assert_array_equal(members, MEMBERS)
    assert read_labels([set(tags) for tags in TAGS], 5)[0] == names
    assert read_labels([["b"], ["a"], ["b"], ["a"]], 4)[1].tolist() == [[False, True], [True, False]] * 2


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_an_array_of_rows_and_classes(dtype):
    names, members = read_labels(MEMBERS.astype(dtype), 5)
    assert names == ("0", "1", "2")
    np.testing.assert_array_equal(members, MEMBERS)


def test_one_label_for_each_row_is_a_number():
    names, numbers = read_labels(["b", "a", "b"], 3)
    assert (names, numbers.tolist()) == (("a", "b"), [1, 0, 1])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.ones((4, 3)), "array of rows and classes has a row for each"),
        (np.full((5, 3), 2), "0 or 1 everywhere"),
        (np.full((5, 3), np.nan), "0 or 1 everywhere"),
        (np.full((5, 3), "a"), "0 or 1 everywhere"),
        (np.eye(5), "No two rows share a label"),
        ([["a"], ["a", "b"], ["a"], ["a"], ["a", "b"]], "All rows have the label a"),
        ([["a"], None, ["b"], ["a"], ["b"]], "Row 1 has no label"),
        ([[], [], [], [], []], "No two rows share a label"),
        (["a", "b"], r"shape \(2,\)"),
        (["a"] * 5, "All rows have the label a"),
        (list("abcde"), "Every row has a label of its own"),
        ([0.5] * 5, "fractions"),
        ([1.0, 2.0, np.nan, 1.0, 2.0], "row 2 is missing"),
    ],
)
def test_labels_that_teach_nothing_are_refused(labels, words):
    with pytest.raises(DataError, match=words):
        read_labels(labels, 5)


def test_more_names_than_memory_are_refused(monkeypatch):
    monkeypatch.setattr("alula_exporters.labels.MAX_MEMBERSHIPS", 10)
    with pytest.raises(DataError, match="5 rows have 3 different labels"):
        read_labels(TAGS, 5)
    assert MAX_MEMBERSHIPS < 1 << 32


def test_rows_are_alike_that_share_a_label():
    expected = [[bool(set(a) & set(b)) for b in TAGS] for a in TAGS]
    members = torch.from_numpy(MEMBERS)
    assert alike(members, members).tolist() == expected
    numbers = torch.tensor([0, 1, 0])
    assert alike(numbers, numbers[:2]).tolist() == [[True, False], [False, True], [True, False]]


@pytest.mark.parametrize("form", ["parquet", "jsonl", "npy"])
def test_files(tmp_path, vectors, form):
    tags, members = as_written(vectors)
    path, options = tmp_path / f"rows.{form}", {"label_column": "tags"}
    if form == "parquet":
        pq.write_table(pa.table({"vector": list(vectors), "tags": tags}), path)
    elif form == "jsonl":
        rows = ({"vector": row.tolist(), "tags": some} for row, some in zip(vectors, tags, strict=True))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        np.save(path, vectors)
        np.save(tmp_path / "labels.npy", members)
        options = {"labels": tmp_path / "labels.npy"}
    data = load_training_data(path, field=None if form == "npy" else "vector", **options)
    assert len(data.classes) == 6
    expected = make_training_data(vectors, members)
    np.testing.assert_array_equal(data.labels, expected.labels)
    np.testing.assert_array_equal(data.held_out_labels, expected.held_out_labels)


def test_each_row_of_a_batch_has_another_that_shares_a_label(vectors):
    _, members = as_written(vectors[:600])
    labels, drawn = torch.from_numpy(members), set()
    batches = BalancedBatches(labels, 64, torch.Generator().manual_seed(0))
    for _ in range(400):
        batch = batches.draw()
        assert len(batch) <= 64
        assert len(set(batch.tolist())) == len(batch)
        assert (alike(labels[batch], labels[batch]).sum(1) > 1).all()
        drawn.update(batch.tolist())
    assert drawn == set(np.flatnonzero(members.any(1)).tolist()), "rows without labels are left out"


@pytest.mark.parametrize("name", [name for name in LABEL_LOSSES if name != "arcface"])
def test_a_row_of_one_label_costs_the_same_in_both_forms(vectors, name):
    numbers = np.arange(len(vectors)) % 7
    picked = torch.arange(40)
    rows = nn.functional.normalize(torch.from_numpy(vectors[:40]))
    costs: list[float] = []
    for labels in (numbers, np.eye(7)[numbers]):
        data = make_training_data(vectors, labels)
        torch.manual_seed(0)
        loss = label_loss(name, data, vectors.shape[1])
        costs.append(loss(rows, torch.from_numpy(data.labels)[picked]).item())
    assert costs[0] == pytest.approx(costs[1], rel=1e-5)


def test_class_vectors_are_means_of_the_rows_that_have_the_class(vectors):
    tags, members = as_written(vectors)
    data = make_training_data(vectors, tags)
    means = [data.train[data.labels[:, one]].mean(0) - data.train.mean(0) for one in range(members.shape[1])]
    np.testing.assert_allclose(class_vectors(data).numpy(), means, atol=1e-5)


def test_quality_counts_rows_that_share_a_label():
    generator = np.random.default_rng(4)
    scores = generator.random((6, 30)).astype(np.float32)
    queries, rows = (generator.random((count, 4)) < 0.3 for count in (6, 30))
    queries[:, 0] = True
    precisions, firsts = [], []
    for query, mine in enumerate(queries):
        right = np.array([bool((mine & rows[row]).any()) for row in np.argsort(-scores[query])])
        firsts.append(right[0])
        precisions.append(np.mean([right[: rank + 1].mean() for rank in np.flatnonzero(right)]))
    found = label_quality(*(torch.from_numpy(array) for array in (scores, queries, rows)))
    assert found["recall@1 by label"] == pytest.approx(np.mean(firsts))
    assert found["mAP by label"] == pytest.approx(np.mean(precisions))


def trained(kind, vectors, labels, loss):
    """A network trained by itself, with sparse rows, or with codes."""
    data, network = make_training_data(vectors, labels), VectorBackbone(nn.Linear(24, 16), 24)
    if kind == "network":
        return train_backbone(network, data, BackboneConfig(loss=loss, epochs=1, batch=64))
    if kind == "sparse":
        config = FlopsConfig(dim=256, nnz=8, steps=20, loss=loss)
        return train_flops(data, config, backbone=network).training["quality"]
    config = DrqConfig(loss=loss, **{**SMALL_DRQ, "epochs": 1})
    return train_drq(data, config, backbone=network).training["quality"]


@pytest.mark.parametrize("kind", ["network", "sparse", "codes"])
def test_training(vectors, kind):
    tags, _ = as_written(vectors)
    quality = trained(kind, vectors, tags, "contrastive")
    assert quality is None or any("mAP by label" in name for name in quality)
    with pytest.raises(UsageError, match="these rows have several"):
        trained(kind, vectors, tags, "arcface")
