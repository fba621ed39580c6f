"""Real pictures with labels, through both kinds of encoder: Fashion-MNIST."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from click.testing import CliRunner

from alula.encoders import FlopsEncoder, load_encoder
from alula.kernels import adc_inner_products
from alula_exporters.cli import train
from benchmarks.fetch import debian_package
from benchmarks.papers.datasets import unit

TRAINED, QUERIES, NEIGHBOURS = 6_000, 1_000, 10


@pytest.fixture(scope="module")
def pictures():
    """Pictures uint8 (n, 28, 28, 1) and labels of the official training and test split."""
    try:
        with debian_package("dataset-fashion-mnist") as folder:
            trained, test = (_read(folder, split) for split in ("train", "t10k"))
            return [part[:TRAINED] for part in trained], [part[:QUERIES] for part in test]
    except SystemExit as reason:
        pytest.skip(str(reason))


def _read(folder, split):
    images, labels = (
        np.frombuffer(gzip.decompress(next(folder.rglob(f"{split}-{kind}.gz")).read_bytes()), np.uint8)
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    # big-endian numbers stand before: a magic one and the sizes of 3 axes, or of 1
    return images[16:].reshape(-1, 28, 28, 1), labels[8:].astype(np.int64)


def _scores(encoder, queries, rows):
    """The encoder's own similarities, (q, n): of sparse rows, or of codes."""
    given, found = (encoder.embed(images) for images in (queries, rows))
    if isinstance(encoder, FlopsEncoder):
        return (encoder.encode_queries(given) @ encoder.encode_rows(found).T).toarray()
    encoded = encoder.encode_rows(found)
    products = [adc_inner_products(encoded.codes, lut) for lut in encoder.encode_queries(given).lut]
    return np.stack(products) / encoded.norms[:, -1]


def _share(scores, labels, wanted):
    """Share of right labels among the nearest rows."""
    nearest = np.argsort(-scores, axis=1)[:, :NEIGHBOURS]
    return (labels[nearest] == wanted[:, None]).mean()


def _pixels(images):
    return unit(images.reshape(len(images), -1).astype(np.float32))


@pytest.mark.parametrize(
    "options",
    [
        ("flops", "--activation", "relu", "--dim", "512", "--flops", "8", "--steps", "300"),
        ("drq", "--bits", "32", "--sign-bits", "32", "--epochs", "2"),
    ],
    ids=["flops", "drq"],
)
def test_neighbours_of_unseen_pictures_have_their_label(takes_long, pictures, tmp_path, options):
    (rows, labels), (queries, wanted) = pictures
    np.save(tmp_path / "images.npy", rows)
    np.save(tmp_path / "labels.npy", labels)
    kind, *others = options
    paths = (tmp_path / "images.npy", "--labels", tmp_path / "labels.npy", "--out", tmp_path / "e.onnx")
    backbone = ("--backbone", "cnn", "--backbone-epochs", "5", "--no-card")
    result = CliRunner().invoke(train, [str(part) for part in (kind, *paths, *backbone, *others)])
    assert result.exit_code == 0, result.output
    found = _share(_scores(load_encoder(tmp_path / "e.onnx"), queries, rows), labels, wanted)
    assert found > _share(_pixels(queries) @ _pixels(rows).T, labels, wanted), "the pixels themselves find more"
