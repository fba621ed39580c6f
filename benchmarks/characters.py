"""Pictures of characters in many fonts: a class per character, a picture per font."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from benchmarks.fetch import cache, debian_package, new_file

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

SIDE = 24
_SIZE = 21  # of the font, in pixels
_LEVEL_1 = range(0xB0, 0xD0)  # first bytes in EUC-JP of the 2,965 kanji of JIS X 0208 that are in common use
# Debian's packages and files in these; files of one package stand together, in one half
TRAINED_FONTS = (
    ("fonts-aoyagi-soseki", "aoyagi-soseki.ttf"),
    ("fonts-horai-umefont", "ume-hgo4.ttf"),
    ("fonts-horai-umefont", "ume-tmo3.ttf"),
    ("fonts-ipaexfont-gothic", "ipaexg.ttf"),
    ("fonts-ipaexfont-mincho", "ipaexm.ttf"),
    ("fonts-kiloji", "kiloji.ttf"),
    ("fonts-konatu", "Konatu.ttf"),
    ("fonts-kouzan-mouhitsu", "kouzan-mouhitsu.ttf"),
    ("fonts-kouzan-mouhitsu", "kouzan-mouhitsu-gyosho.ttf"),
    ("fonts-migmix", "migmix-1p-regular.ttf"),
    ("fonts-migmix", "migu-1p-bold.ttf"),
    ("fonts-morisawa-bizud-gothic", "BIZUDGothic-Bold.ttf"),
    ("fonts-oradano-mincho-gsrr", "OradanoGSRR.ttf"),
    ("fonts-reggae", "ReggaeOne-Regular.ttf"),
    ("fonts-sawarabi-gothic", "sawarabi-gothic-medium.ttf"),
    ("fonts-seto", "setofont.ttf"),
    ("fonts-train", "TrainOne-Regular.ttf"),
    ("fonts-wqy-microhei", "wqy-microhei.ttc"),
)
UNSEEN_FONTS = (
    ("fonts-aoyagi-kouzan-t", "AoyagiKouzanT.ttf"),
    ("fonts-dotgothic16", "DotGothic16-Regular.ttf"),
    ("fonts-hanazono", "HanaMinA.ttf"),
    ("fonts-motoya-l-cedar", "MTLc3m.ttf"),
    ("fonts-motoya-l-maruberi", "MTLmr3m.ttf"),
    ("fonts-yozvox-yozfont-standard-kana", "YOzRS_.ttf"),
)


@dataclass(frozen=True)
class Characters:
    """Pictures in the order of fonts, then of characters.

    Args:
        pictures: uint8 (n, 24, 24, 1), white on black.
        characters: int64 (n,): numbers of the characters, 0 .. 2,964.
        fonts: int64 (n,): numbers of the fonts, those of `TRAINED_FONTS` first.
    """

    pictures: U8
    characters: I64
    fonts: I64


def load_characters() -> Characters:
    """Every kanji of JIS X 0208's first level in all fonts that have it.

    The first call fetches the fonts and draws them: some minutes, most of them the network's. The pictures follow from
    the packages' versions and Pillow's.
    """
    path = cache() / f"characters-{SIDE}.npz"
    if not path.exists():
        pictures, characters, fonts = zip(*_render_all(), strict=True)
        with new_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, pictures=np.stack(pictures), characters=characters, fonts=fonts)
    with np.load(path) as stored:
        return Characters(stored["pictures"], stored["characters"].astype(np.int64), stored["fonts"].astype(np.int64))


def kanji() -> list[str]:
    """The 2,965 kanji of JIS X 0208's first level, in its order."""
    found = []
    for first in _LEVEL_1:
        for second in range(0xA1, 0xFF):
            try:
                found.append(bytes([first, second]).decode("euc_jp"))
            except UnicodeDecodeError:
                continue  # the last row is not full
    return found


def _render_all() -> Iterator[tuple[U8, int, int]]:
    """Pictures with the numbers of their characters and fonts."""
    for package, files in groupby(enumerate((*TRAINED_FONTS, *UNSEEN_FONTS)), key=lambda entry: entry[1][0]):
        with debian_package(package) as folder:
            for font, (_, name) in files:
                path = next(folder.rglob(name), None)
                if path is None:
                    raise SystemExit(f"This system's {package} has no {name}. Use Debian 12's package.")
                for character, picture in _render_font(path):
                    yield picture, character, font


def _render_font(path: Path) -> Iterator[tuple[int, U8]]:
    """The characters that a font has: a missing one would be drawn as a box."""
    have = TTFont(path, fontNumber=0 if path.suffix == ".ttc" else -1).getBestCmap()
    # the basic layout is in every Pillow: the same on all machines
    font = ImageFont.truetype(str(path), _SIZE, layout_engine=ImageFont.Layout.BASIC)
    for number, character in enumerate(kanji()):
        if ord(character) in have:
            picture = render(character, font)
            if picture.any():  # some fonts have empty glyphs
                yield number, picture


def render(character: str, font: ImageFont.FreeTypeFont) -> U8:
    """A character in the middle of its picture, uint8 (24, 24, 1)."""
    image = Image.new("L", (SIDE, SIDE))
    left, top, right, bottom = font.getbbox(character)
    place = ((SIDE - left - right) / 2, (SIDE - top - bottom) / 2)
    ImageDraw.Draw(image).text(place, character, fill=255, font=font)
    return np.asarray(image)[:, :, None]
