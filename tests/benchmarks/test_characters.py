"""Characters are drawn in the middle of a picture, in fonts of two halves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import font_manager
from PIL import ImageFont

from benchmarks.characters import SIDE, TRAINED_FONTS, UNSEEN_FONTS, _render_font, kanji, render


def test_kanji_are_those_of_the_first_level() -> None:
    found = kanji()
    assert len(found) == len(set(found)) == 2965  # JIS X 0208, rows 16 to 47
    assert (found[0], found[-1]) == ("亜", "腕")


def test_a_character_lies_in_the_middle_of_its_picture() -> None:
    for letter in "AOj":
        picture = render(letter, ImageFont.load_default(18))[:, :, 0]
        rows, columns = (np.flatnonzero(picture.any(axis=axis)) for axis in (1, 0))
        for used in (rows, columns):
            assert abs((used[0] + used[-1]) - (SIDE - 1)) <= 2


def test_no_package_lies_in_both_halves() -> None:
    assert not {package for package, _ in TRAINED_FONTS} & {package for package, _ in UNSEEN_FONTS}


def test_characters_that_a_font_lacks_are_not_drawn_as_boxes() -> None:
    without_kanji = Path(font_manager.findfont("DejaVu Sans"))
    assert list(_render_font(without_kanji)) == []
