"""DRQ in this process: what rows of either layout become, and that scores are the codes' asymmetric ones."""

from __future__ import annotations

import numpy as np
import pytest

from alula.encoders import load_encoder
from alula.errors import UsageError
from alula.index_types import VectorField, check_options, index_type
from tests.tiny_encoders import prepare, random_vectors, write_drq

LEVELS = 11
DRQ = index_type("DRQ")
METRICS = ["COSINE", "IP", "L2"]
ADC = {"layout": "adc"}
HAMMING = {"layout": "hamming", "binary_index": "BIN_FLAT"}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drq")
    made = {metric: write_drq(folder / f"{metric}.onnx", levels=LEVELS, metric=metric, scale=3.0) for metric in METRICS}
    return {metric: (drq, load_encoder(drq.path, threads=1)) for metric, drq in made.items()}


def options(**given):
    return check_options(DRQ.local_options, given, "DRQ")


def local(encoder, metric, settings, vectors, *, keep_vectors=False):
    """An index of rows as they come back from a collection of some layout."""
    lowering = DRQ.lowering(VectorField("embedding", 8, metric, "field"), encoder, settings)
    index = DRQ.local(encoder, metric, keep_vectors=keep_vectors)
    index.add(lowering.decode_rows(lowering.encode_rows(vectors)), vectors if keep_vectors else None)
    return index


def code_scores(drq, metric, vectors, query, levels):
    """The scores of the reconstructions, by brute force and in the user's units."""
    (q,) = prepare(drq.info, query[None])
    x_hat = drq.reconstructions(drq.codes(vectors))[levels - 1]
    unit = drq.info.scale**2
    norms = np.linalg.norm(x_hat, axis=1)
    return {"IP": x_hat @ q * unit, "L2": np.square(q - x_hat).sum(1) * unit, "COSINE": x_hat @ q / norms}[metric]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("settings", [ADC, HAMMING], ids=["adc", "hamming"])
@pytest.mark.parametrize("bits", [8, 32, None])
def test_scores_are_those_of_the_reconstructions(encoders, metric, settings, bits):
    drq, encoder = encoders[metric]
    vectors, queries = random_vectors(300, seed=1), random_vectors(4, seed=2)
    found = local(encoder, metric, settings, vectors).search(queries, 15, options(bits=bits))
    for i, query in enumerate(queries):
        true = code_scores(drq, metric, vectors, query, LEVELS if bits is None else bits // 8)
        tolerance = 2e-3 * np.abs(true).max()  # norms are held as float16
        np.testing.assert_allclose(found.scores[i], true[found.positions[i]], atol=tolerance)
        best = np.sort(true)[:: 1 if metric == "L2" else -1][:15]
        np.testing.assert_allclose(true[found.positions[i]], best, atol=tolerance)


@pytest.mark.parametrize("metric", METRICS)
def test_hamming_keeps_every_length_and_adc_those_with_norms(encoders, metric):
    _, encoder = encoders[metric]
    vectors = random_vectors(20)
    local(encoder, metric, HAMMING, vectors).search(vectors[:1], 3, options(bits=24))
    index = local(encoder, metric, ADC, vectors)
    if metric == "IP":
        index.search(vectors[:1], 3, options(bits=24))
        return
    with pytest.raises(UsageError, match="bits is 24; the collection has the lengths 8, 16, 32, 64, 88"):
        index.search(vectors[:1], 3, options(bits=24))


@pytest.mark.parametrize("metric", METRICS)
def test_candidates_are_ranked_by_the_vectors_that_are_kept(encoders, metric, tmp_path):
    _, encoder = encoders[metric]
    vectors, queries = random_vectors(400, seed=3), random_vectors(5, seed=4)
    index = local(encoder, metric, HAMMING, vectors, keep_vectors=True)
    index.delete(np.array([7]))
    index.save(tmp_path / "saved")
    for each in (index, DRQ.open_local(tmp_path / "saved", encoder)):
        found = each.search(queries, 5, options(candidates=400))
        for i, query in enumerate(queries):
            products = vectors @ query
            lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
            true = {"IP": products, "COSINE": products / lengths, "L2": np.square(vectors - query).sum(1)}[metric]
            true[7] = np.inf if metric == "L2" else -np.inf
            best = np.argsort(true if metric == "L2" else -true, kind="stable")[:5]
            np.testing.assert_array_equal(found.positions[i], best)
            np.testing.assert_allclose(found.scores[i], true[best], rtol=1e-4)


@pytest.mark.parametrize("metric", ["COSINE", "L2"])
@pytest.mark.parametrize("keep_vectors", [False, True])
def test_rows_of_a_collection_without_codes_are_ranked_by_their_signs(encoders, metric, keep_vectors, tmp_path):
    drq, encoder = encoders[metric]
    vectors, queries = random_vectors(300, seed=3), random_vectors(5, seed=4)
    lowering = DRQ.lowering(VectorField("embedding", 8, metric, "field"), encoder, {**HAMMING, "code_bits": "auto"})
    index = DRQ.local(encoder, metric, keep_vectors=keep_vectors, settings=lowering.settings)
    index.add(lowering.decode_rows(lowering.encode_rows(vectors)), vectors if keep_vectors else None)
    index.save(tmp_path / "saved")
    estimates = drq.sign_estimates(queries, vectors)
    for each in (index, DRQ.open_local(tmp_path / "saved", encoder, settings=lowering.settings)):
        found = each.search(queries, 15, options(candidates=300), rerank=0)
        for i, true in enumerate(estimates):
            tolerance = 2e-3 * np.abs(true).max()  # lengths are held as float16
            np.testing.assert_allclose(found.scores[i], true[found.positions[i]], atol=tolerance)
            best = np.sort(true)[:: 1 if metric == "L2" else -1][:15]
            np.testing.assert_allclose(true[found.positions[i]], best, atol=tolerance)
        assert each.search(queries[:0], 15, options(candidates=300)).positions.shape == (0, 15)
        if keep_vectors:
            exact = each.search(queries, 5, options(candidates=300))
            nearest = np.argsort(np.square(vectors - queries[0]).sum(1))[:5]
            if metric == "COSINE":
                nearest = np.argsort(-(vectors @ queries[0]) / np.linalg.norm(vectors, axis=1))[:5]
            np.testing.assert_array_equal(exact.positions[0], nearest)


@pytest.mark.parametrize("name", ["bits", "probes"])
def test_signs_take_no_options_of_codes(encoders, name):
    _, encoder = encoders["L2"]
    index = DRQ.local(encoder, "L2", keep_vectors=False, settings={"code_bits": "0"})
    with pytest.raises(UsageError, match=rf"{name} is 16, and this collection stores no codes"):
        index.search(random_vectors(1), 3, options(**{name: 16}))


@pytest.mark.parametrize("metric", METRICS)
def test_tables_are_those_of_the_encoder(encoders, metric):
    _, encoder = encoders[metric]
    index = DRQ.local(encoder, metric, keep_vectors=False)
    queries = random_vectors(6, seed=5) * np.array([[1], [0], [1e-20], [1e15], [3], [1e-3]], np.float32)
    lut, norms = index._tables(queries, 4)
    encoded = encoder.encode_queries(queries)
    np.testing.assert_allclose(lut, encoded.lut[:, :4], rtol=1e-4, atol=1e-6 * np.abs(encoded.lut[0]).max())
    np.testing.assert_allclose(norms, encoded.norms, rtol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_a_batch_gives_the_bits_of_single_queries(encoders, metric):
    _, encoder = encoders[metric]
    index = local(encoder, metric, HAMMING, random_vectors(300, seed=8))
    queries = random_vectors(40, seed=9)
    batch = index.search(queries, 10, options())
    for i in range(len(queries)):
        one = index.search(queries[i : i + 1], 10, options())
        np.testing.assert_array_equal(one.positions[0], batch.positions[i])
        np.testing.assert_array_equal(one.scores[0], batch.scores[i])


def test_probes_visit_fewer_rows(encoders):
    _, encoder = encoders["COSINE"]
    vectors = random_vectors(500, seed=6)
    index = local(encoder, "COSINE", HAMMING, vectors)
    every, one, all_of_them = (
        index.search(vectors[:3], 500, options(probes=probes)).positions for probes in (None, 1, 256)
    )
    np.testing.assert_array_equal(np.sort(every), np.sort(all_of_them))
    first = encoder.encode_rows(vectors).codes[:, 0]
    for positions in one:
        visited = positions[positions >= 0]
        assert 0 < len(visited) < 500
        assert len(set(first[visited].tolist())) == 1
