"""WordNet's definitions as a collection of texts, and queries for one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.fetch import cache, new_file
from benchmarks.glosses import load_synsets
from benchmarks.sentence_models import embed_minilm

KINDS = ("words", "examples")

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Queries:
    """Queries, each with the rows that answer it.

    Args:
        texts: q queries.
        rows: For each the numbers of its rows.
    """

    texts: Sequence[str]
    rows: Sequence[tuple[int, ...]]

    @property
    def relevance(self) -> list[dict[str, int]]:
        """The judgements of each query, as `alula.evaluation.judgements` has them."""
        return [{str(row): 1 for row in rows} for rows in self.rows]

    def part(self, places: Iterable[int]) -> Queries:
        """Some of the queries."""
        chosen = list(places)
        return Queries([self.texts[i] for i in chosen], [self.rows[i] for i in chosen])


@dataclass(frozen=True)
class Definitions:
    """The collection and its queries.

    Args:
        texts: The rows: distinct definitions, without the examples.
        judged: Queries by their kind.
        others: Queries of the same kinds that have no row in common with those of ``judged``, to choose by or to learn
            from.
    """

    texts: Sequence[str]
    judged: dict[str, Queries]
    others: dict[str, Queries]

    def vectors(self) -> F32:
        """MiniLM's unit vectors of the rows, float32 (n, 384); the first call embeds them."""
        path = cache() / f"minilm_definitions-{len(self.texts)}.npy"
        if not path.exists():
            with new_file(path) as partial, partial.open("wb") as file:
                np.save(file, embed_minilm(self.texts))
        return np.load(path)


def load_definitions(most: int, queries: int, seed: int) -> Definitions:
    """Take definitions, evenly spread over WordNet, and draw queries.

    ``words`` asks with all words of a synset, ``examples`` with one of its example sentences. No definition has a word
    of the query's synset in it, and examples are no part of a row. A query of words is answered by every row whose
    synset has all of them.

    Args:
        most: Rows to take.
        queries: Judged queries of each kind.
        seed: Seed of the draw.
    """
    synsets = load_synsets()
    texts = list(dict.fromkeys(_definition(one.gloss) for one in synsets))
    picked = [texts[i] for i in np.linspace(0, len(texts) - 1, most).astype(np.int64)]
    numbers = {text: i for i, text in enumerate(picked)}
    holders: dict[str, set[int]] = {}
    asked: dict[str, dict[str, set[int]]] = {kind: {} for kind in KINDS}
    for one in synsets:
        row = numbers.get(_definition(one.gloss))
        if row is None:
            continue
        for lemma in one.lemmas:
            holders.setdefault(lemma.casefold(), set()).add(row)
        if _words(" ".join(one.lemmas)) & _words(picked[row]):
            continue
        asked["words"].setdefault(", ".join(one.lemmas), set()).add(row)
        for example in re.findall(r'"([^"]+)"', one.gloss):
            asked["examples"].setdefault(example, set()).add(row)
    for text in asked["words"]:
        asked["words"][text] = set.intersection(*(holders[lemma.casefold()] for lemma in text.split(", ")))
    return _split(picked, asked, queries, seed)


def _split(texts: Sequence[str], asked: dict[str, dict[str, set[int]]], queries: int, seed: int) -> Definitions:
    every = {
        kind: Queries(list(found), [tuple(sorted(rows)) for rows in found.values()]) for kind, found in asked.items()
    }
    order = {kind: np.random.default_rng(seed).permutation(len(found.texts)) for kind, found in every.items()}
    judged = {kind: found.part(order[kind][:queries]) for kind, found in every.items()}
    taken = {row for found in judged.values() for rows in found.rows for row in rows}
    others = {
        kind: found.part(i for i in order[kind][queries:] if not taken.intersection(found.rows[i]))
        for kind, found in every.items()
    }
    return Definitions(texts, judged, others)


def _definition(gloss: str) -> str:
    return re.split(r';?\s*"', gloss, maxsplit=1)[0].strip().rstrip(";: ")


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
