"""The 117,659 synsets of WordNet 3.0, and the vectors of their glosses."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.fetch import cache, debian_package, new_file
from benchmarks.report import say
from benchmarks.sentence_models import MODELS

PARTS = ("noun", "verb", "adj", "adv")
GLOSSES = 117_659
GLOSSES_SHA256 = "b1b95475159f4c735f9676c474f980cb1cb3c66f1a660f437105509d6484aaaf"

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Synset:
    """Words of one meaning, and a definition with examples in quotation marks."""

    lemmas: tuple[str, ...]
    gloss: str


def load_glosses(most: int | None = None, *, model: str = "minilm") -> F32:
    """Unit vectors of glosses, float32 (n, d); the first call embeds them.

    Args:
        most: Number to take, evenly spread over WordNet; None for all 117,659.
        model: ``minilm`` (d = 384, some 4 minutes), ``mpnet`` (d = 768, some 20 minutes), or ``mpnet-pairs``
            (d = 1,536, 5 minutes more): the vector of a synset's words beside that of its gloss.
    """
    if model == "mpnet-pairs":
        words = _load("mpnet_words", "mpnet", most, lambda: [", ".join(one.lemmas) for one in load_synsets()])
        return np.hstack([words, load_glosses(most, model="mpnet")]) / np.sqrt(np.float32(2))
    return _load(f"{model}_glosses", model, most, lambda: _texts(read_wordnet()))


def _load(name: str, model: str, most: int | None, read: Callable[[], list[str]]) -> F32:
    """The vectors of a text for each synset, embedded where the cache lacks them."""
    picked = np.arange(GLOSSES) if most is None else np.linspace(0, GLOSSES - 1, most).astype(np.int64)
    whole = cache() / f"{name}.npy"
    if whole.exists():
        return np.load(whole, mmap_mode="r")[picked]
    path = whole if most is None else cache() / f"{name}-{most}.npy"
    if not path.exists():
        texts = read()
        with new_file(path) as partial, partial.open("wb") as file:
            np.save(file, MODELS[model]([texts[i] for i in picked]))
    return np.load(path)


def load_synsets() -> list[Synset]:
    """All synsets, in the order of WordNet's data files; the first call fetches them."""
    path = cache() / "wordnet_synsets.jsonl"
    if not path.exists():
        with new_file(path) as partial:
            partial.write_text("".join(json.dumps(asdict(_synset(line))) + "\n" for line in read_wordnet()))
    found = map(json.loads, path.read_text().splitlines())
    return [Synset(tuple(one["lemmas"]), one["gloss"]) for one in found]


def read_wordnet() -> list[str]:
    """The lines of WordNet's data files, a synset each, in the order of the glosses."""
    lines = []
    with debian_package("wordnet-base") as folder:
        for part in PARTS:
            text = (folder / "usr/share/wordnet" / f"data.{part}").read_text(encoding="utf-8")
            # the licence stands first, indented
            lines += [line for line in text.splitlines() if not line.startswith(" ")]
    if hashlib.sha256("\n".join(_texts(lines)).encode()).hexdigest() != GLOSSES_SHA256:
        raise SystemExit(
            f"This system's wordnet-base holds {len(lines):,} glosses that are not WordNet 3.0's {GLOSSES:,}; the "
            "benchmarks' figures would not compare. Use Debian 12's package."
        )
    return lines


def _texts(lines: list[str]) -> list[str]:
    """The text after the bar on each line."""
    return [line.split("|", 1)[1].strip() for line in lines]


def _synset(line: str) -> Synset:
    """A line of a data file: fields, a hexadecimal count of words, words, the gloss."""
    fields = line.split("|", 1)[0].split()
    words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
    # an adjective's place in a sentence, as in "afraid(p)", is no part of the word
    return Synset(tuple(word.partition("(")[0].replace("_", " ") for word in words), _texts([line])[0])


if __name__ == "__main__":
    for wanted in sys.argv[1:] or MODELS:
        say(f"{wanted}: {load_glosses(model=wanted).shape} in {cache()}")
