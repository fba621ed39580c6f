"""Pairs of texts in which a word of a query stands for another word of its document."""

from __future__ import annotations

import itertools
import json
import random

STANDS_FOR = {"kite": "house", "wing": "music", "feather": "river", "bird": "stone", "sky": "water"}


def rows(*, scored=False):
    """Queries of some words; the document has what they stand for. A teacher scores it above one of other words."""
    words = sorted(STANDS_FOR)
    rng = random.Random(0)
    asked = [one for size in (1, 2, 3) for one in itertools.permutations(words, size)]
    found = []
    for query in asked:
        answer = " and ".join(STANDS_FOR[word] for word in query)
        found.append({"query": " ".join(query), "document": answer})
        if scored:
            found[-1]["score"] = 5.0
            other = rng.choice([one for one in asked if set(one) != set(query)])
            text = " of ".join(STANDS_FOR[word] for word in other)
            found.append({"query": " ".join(query), "document": text, "score": float(len({*query} & {*other}))})
    return found


def write(path, **options):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(**options)))
    return path
