"""Image files in folders."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from alula.errors import DataError, UsageError
from alula.sources import open_source, read_inputs

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)


def save(path, pixels):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_a_folder_with_sub_folders(tmp_path):
    names = ["cats/a.png", "cats/b.bmp", "dogs/a.PNG", "dogs/c.webp", "z.png"]
    for name, image in zip(names, IMAGES, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    (tmp_path / ".DS_Store").touch()
    source = open_source(tmp_path, None, "images", image_shape=(4, 6, 3))
    assert (source.rows, list(source.scalars)) == (5, ["path", "label"])
    batches = list(source.batches(2))
    np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in batches]), IMAGES)
    assert [path for batch in batches for path in batch.columns["path"].to_pylist()] == names
    labels = ["cats", "cats", "dogs", "dogs", None]
    assert [label for batch in batches for label in batch.columns["label"].to_pylist()] == labels
    (rest,) = source.batches(2, after=3)
    assert rest.columns["path"].to_pylist() == ["z.png"]
    assert [part.to_pylist() for part in source.keys("path")] == [names]
    np.testing.assert_array_equal(read_inputs(tmp_path, None, "images"), IMAGES)


def test_images_that_do_not_fit_are_bad(tmp_path):
    save(tmp_path / "a.png", IMAGES[0])
    save(tmp_path / "b.png", IMAGES[1][:, :5])
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "d.jpg").write_bytes(b"no image")
    save(tmp_path / "e.png", IMAGES[2])
    source = open_source(tmp_path, None, "images", image_shape=(4, 6, 3))
    assert list(source.scalars) == ["path"]
    (batch,) = source.batches()
    assert list(batch.bad) == [1, 2, 3]
    assert "b.png is an image of 5 x 4 pixels, where 6 x 4 are needed" in batch.bad[1]
    assert "c.png is no image that can be read" in batch.bad[2]
    np.testing.assert_array_equal(batch.inputs[[0, 4]], IMAGES[[0, 2]])
    assert not batch.inputs[[1, 2, 3]].any()
    with pytest.raises(DataError, match=r"Row 1 of .*: .*b\.png is an image of 5 x 4"):
        read_inputs(tmp_path, None, "images")


def test_colours_become_the_channels_that_are_wanted(tmp_path):
    grey = IMAGES[0, ..., 0]
    save(tmp_path / "a.png", grey)
    (batch,) = open_source(tmp_path, None, "images", image_shape=(4, 6, 3)).batches()
    np.testing.assert_array_equal(batch.inputs[0], np.repeat(grey[..., None], 3, axis=2))
    (batch,) = open_source(str(tmp_path / "*.png"), None, "images", image_shape=(4, 6, 1)).batches()
    np.testing.assert_array_equal(batch.inputs[0], grey[..., None])
    assert open_source(tmp_path / "a.png", None, "images").rows == 1


def test_what_is_no_image_among_images(tmp_path):
    save(tmp_path / "a.png", IMAGES[0])
    (tmp_path / "b.txt").write_text("x")
    with pytest.raises(UsageError, match=r"b\.txt is beside images"):
        open_source(tmp_path, None, "images")
