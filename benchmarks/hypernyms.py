"""Direct hypernyms of WordNet's glosses, which serve as their classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.fetch import cache, new_file
from benchmarks.glosses import read_wordnet

I64 = npt.NDArray[np.int64]

HYPERNYMS = ("@", "@i")  # of a class, of a named instance


def load_hypernyms() -> I64:
    """`first_hypernyms` of all glosses, int64 (117,659,), in their order."""
    path = cache() / "hypernyms.npy"
    if not path.exists():
        with new_file(path) as partial, partial.open("wb") as file:
            np.save(file, first_hypernyms(read_wordnet()))
    return np.load(path)


def first_hypernyms(lines: Sequence[str]) -> I64:
    """The line of each noun's first direct hypernym, int64 (n,); -1 without any.

    Args:
        lines: Synsets as WordNet's data files have them (wndb(5WN)): offset, file, part of speech, number of words in
            hexadecimal, words with their numbers, number of pointers, pointers of four fields each.
    """
    split = [line.split("|", 1)[0].split() for line in lines]
    # offsets count within the file of a part of speech
    numbers = {fields[0]: number for number, fields in enumerate(split) if fields[2] == "n"}
    hypernyms = np.full(len(lines), -1, np.int64)
    for number, fields in enumerate(split):
        if fields[2] != "n":
            continue
        start = 4 + 2 * int(fields[3], 16)
        pointers = fields[start + 1 : start + 1 + 4 * int(fields[start])]
        for symbol, offset in zip(pointers[::4], pointers[1::4], strict=True):
            if symbol in HYPERNYMS:
                hypernyms[number] = numbers[offset]
                break
    return hypernyms
