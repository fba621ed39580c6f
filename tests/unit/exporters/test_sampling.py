from __future__ import annotations

import numpy as np
import pytest
import torch

from alula.errors import DataError, UsageError
from alula_exporters.sampling import BalancedBatches


def batches(labels, size, seed=0, **options):
    return BalancedBatches(torch.as_tensor(labels), size, torch.Generator().manual_seed(seed), **options)


def counts_of(labels, batch):
    return np.unique(np.asarray(labels)[batch.numpy()], return_counts=True)


UNEVEN = np.random.default_rng(0).permutation(np.repeat(np.arange(100) * 7 - 3, np.arange(100) % 9 + 1))


@pytest.mark.parametrize("size", [4, 5, 32, 150])
@pytest.mark.parametrize("per_label", [2, 4])
def test_every_row_has_another_of_its_label(size, per_label):
    sampler = batches(UNEVEN, size, per_label=per_label)
    for _ in range(50):
        batch = sampler.draw()
        assert batch.dtype == torch.int64
        assert len(batch.unique()) == len(batch)
        _, counts = counts_of(UNEVEN, batch)
        assert len(counts) >= 2
        assert counts.min() >= 2
        assert counts.max() <= min(per_label, size // 2)
        assert size - per_label < len(batch) <= size


def test_rows_alone_with_their_label_are_never_drawn_and_all_others_are():
    sampler = batches(UNEVEN, 64)
    drawn = torch.cat([sampler.draw() for _ in range(300)]).unique().tolist()
    numbers, counts = np.unique(UNEVEN, return_counts=True)
    assert drawn == np.flatnonzero(np.isin(UNEVEN, numbers[counts > 1])).tolist()


def test_pairs_fill_the_batch():
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(500), 2))
    _, counts = counts_of(labels, batches(labels, 256).draw())
    assert counts.tolist() == [2] * 128


def test_few_labels_give_more_rows_each():
    labels = np.arange(1000) % 10
    _, counts = counts_of(labels, batches(labels, 128).draw())
    assert counts.tolist() == [12] * 10


def test_a_large_label_leaves_room_for_another():
    labels = np.repeat([0, 1], [1000, 2])
    _, counts = counts_of(labels, batches(labels, 64).draw())
    assert counts.tolist() == [32, 2]


def test_rows_of_a_label_are_equally_likely():
    labels = np.repeat(np.arange(3), 5)
    sampler = batches(labels, 6, per_label=3)
    drawn = np.bincount(torch.cat([sampler.draw() for _ in range(2000)]).numpy(), minlength=15)
    np.testing.assert_allclose(drawn / drawn.mean(), 1, atol=0.1)


def test_batches_repeat_with_the_seed_and_differ_from_each_other():
    first, second = batches(UNEVEN, 32), batches(UNEVEN, 32)
    series = [first.draw().tolist() for _ in range(5)]
    assert series == [second.draw().tolist() for _ in range(5)]
    assert len({tuple(batch) for batch in series}) == 5
    assert batches(UNEVEN, 32, seed=1).draw().tolist() != series[0]


def test_labels_without_pairs_are_an_error():
    with pytest.raises(DataError, match="Each of the 1,000 rows has a label of its own"):
        batches(np.arange(1000), 32)


@pytest.mark.parametrize(("size", "per_label"), [(3, 2), (32, 1)])
def test_too_small_batches_are_an_error(size, per_label):
    with pytest.raises(UsageError, match="two labels with two rows each"):
        batches(UNEVEN, size, per_label=per_label)
