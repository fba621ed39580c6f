from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from alula_exporters.drq import model as model_module
from alula_exporters.drq.model import RecurrentQuantizer, find_codes, reconstruct, turned_books
from alula_exporters.drq.start import random_orthogonal


@pytest.fixture(scope="module", params=["whole", "axes"])
def model(request):
    """Four levels of vectors of 7 numbers, taken whole or along 6 axes in blocks of 3."""
    generator = torch.Generator().manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "axes":
            patch.setattr(model_module, "sizes", lambda dim, levels: (6, 2, 2))
            patch.setattr(model_module, "WHOLE", 6)
        model = RecurrentQuantizer(7, 4, 16).requires_grad_(False)
    rank, blocks = (6, 2) if request.param == "axes" else (7, 1)
    assert model.turns.shape == (2, blocks, rank // blocks, rank // blocks)
    model.codebooks.copy_(torch.randn(2, 256, rank, generator=generator))
    model.log_scales.copy_(torch.tensor([[0.0, 0.2], [-0.5, -0.3], [-1.2, -0.9], [-1.5, -1.6]])[:, :blocks])
    model.offset.copy_(torch.randn(7, generator=generator))
    for block in model.turns.flatten(0, 1):
        block.copy_(random_orthogonal(len(block), generator))
    if model.axes is not None:
        model.axes.copy_(random_orthogonal(7, generator)[:rank])
    return model


def _numpy_codewords(model):
    first, second = model.codebooks.numpy().astype(np.float64)
    eye = np.eye(model.turns.shape[-1])[None].repeat(model.turns.shape[1], axis=0)
    words = []
    # two codebooks for four levels: the third and the fourth turn the second's
    turns = [eye, eye, *model.turns.numpy()]
    for book, blocks, log_scales in zip([first, *[second] * 3], turns, model.log_scales.numpy(), strict=True):
        scaled = [np.exp(log_scale) * block for block, log_scale in zip(blocks, log_scales, strict=True)]
        words.append(book @ scipy.linalg.block_diag(*scaled))
    words = np.stack(words) if model.axes is None else np.stack(words) @ model.axes.numpy()
    words[0] = words[0] + model.offset.numpy()
    return words


def test_later_levels_scale_and_turn_the_codebook_of_an_earlier_one(model):
    np.testing.assert_allclose(model.codewords().numpy(), _numpy_codewords(model), atol=1e-5)


def test_levels_without_a_codebook_turn_the_second_half_of_them_in_runs():
    model = RecurrentQuantizer(384, 16, 16).requires_grad_(False)
    books = torch.randn(model.codebooks.shape, generator=torch.Generator().manual_seed(0))
    model.codebooks.copy_(books)
    # scales are 1 and turns the identity until they are set
    assert torch.equal(model.inner_codewords(), books[[0, 1, 2, 3, 4, 5, 6, 7, 4, 4, 5, 5, 6, 6, 7, 7]])


@pytest.mark.parametrize(
    ("books", "levels", "turned"), [(1, 0, []), (2, 3, [1, 1, 1]), (3, 5, [1, 1, 1, 2, 2]), (5, 4, [2, 2, 3, 4])]
)
def test_runs_of_levels_turn_one_codebook(books, levels, turned):
    assert turned_books(books, levels) == turned


@pytest.mark.parametrize("levels", [8, 16, 64])
@pytest.mark.parametrize("dim", [50, 384, 768, 1536])
def test_half_of_the_levels_share_and_the_file_has_a_third_of_the_numbers_of_separate_codebooks(dim, levels):
    if (dim, levels) == (50, 8):
        return  # two codebooks are the least
    model = RecurrentQuantizer(dim, levels, 16)
    assert 2 <= len(model.codebooks) <= levels / 2
    assert model.parameter_count + dim <= levels * 256 * dim / 3
    assert len(model.books) == levels == len(model.inner_codewords())


def test_distances_are_the_same_along_the_axes(model):
    x = torch.from_numpy(np.random.default_rng(5).standard_normal((10, 7)).astype(np.float32))
    whole = torch.cdist(x, model.codewords()[0]).square()
    inner = torch.cdist(model.inner(x), model.inner_codewords()[0]).square()
    # they differ by what lies along no axis, which is the same for every codeword
    np.testing.assert_allclose((whole - inner).std(1), 0, atol=1e-4)


def test_reconstructions_and_tables_give_the_asymmetric_distance(model):
    rng = np.random.default_rng(1)
    codes, queries = rng.integers(256, size=(20, 4)), rng.standard_normal((4, 7)).astype(np.float32)
    words = _numpy_codewords(model)
    x_hat = model(torch.from_numpy(codes)).numpy()
    tables = model.tables(torch.from_numpy(queries)).numpy()
    for t in range(4):
        expected = sum(words[s][codes[:, s]] for s in range(t + 1))
        np.testing.assert_allclose(x_hat[:, t], expected, atol=1e-5)
        inner = sum(tables[:, s][:, codes[:, s]] for s in range(t + 1))
        np.testing.assert_allclose(inner, queries @ expected.T, atol=1e-4)
        norms = np.linalg.norm(x_hat[:, t], axis=1)
        distance = (queries**2).sum(1)[:, None] + norms**2 - 2 * inner
        np.testing.assert_allclose(distance, ((queries[:, None] - expected[None]) ** 2).sum(2), atol=1e-3)


def _error(model, x, codes):
    return (x - model(codes)[:, -1]).square().sum(1)


def test_greedy_codes_against_numpy(model):
    x = np.random.default_rng(2).standard_normal((30, 7)).astype(np.float32)
    words, residual, expected = _numpy_codewords(model), x.astype(np.float64), []
    for t in range(4):
        expected.append(((residual[:, None] - words[t][None]) ** 2).sum(2).argmin(1))
        residual = residual - words[t][expected[-1]]
    expected = np.stack(expected, axis=1)
    assert np.array_equal(find_codes(torch.from_numpy(x), model.codewords(), 1).numpy(), expected)
    assert np.array_equal(model.encode(torch.from_numpy(x), beam=1).numpy(), expected)


def test_a_wider_beam_is_nearer_and_a_full_one_is_exact(model):
    x = torch.from_numpy(np.random.default_rng(3).standard_normal((40, 7)).astype(np.float32))
    errors = [float(_error(model, x, model.encode(x, beam)).mean()) for beam in (1, 5, 64)]
    assert errors[0] > errors[1] >= errors[2]
    # with all 256 prefixes kept, the first two levels are searched exhaustively
    words = model.codewords()[:2]
    best = torch.cdist(x, (words[0][:, None] + words[1][None]).reshape(-1, 7)).min(1).values.square()
    got = (x - reconstruct(find_codes(x, words, 256), words)[:, -1]).square().sum(1)
    np.testing.assert_allclose(got, best, atol=1e-4)
