"""A client's model of its rows: required, possible, and the right search results.

A row is a function of its id and its version, so every reader can check a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from tests.small_collections import scores

FIELD = "embedding"
DIM = 16
METRIC = "COSINE"
SCORE_ERROR = 1e-4
CLIENTS = 4  # an id belongs to client id % CLIENTS
FIELDS = ("id", "owner", "version", "text")


@lru_cache(maxsize=200_000)
def vector_of(id_: int, version: int) -> np.ndarray:
    """The vector of a row: float32 (DIM,)."""
    return np.random.default_rng((id_, version)).standard_normal(DIM).astype(np.float32)


def text_of(id_: int, version: int) -> str:
    """The text of a row."""
    return f"row {id_} in version {version} " + "." * (id_ % 40)


def row_of(id_: int, version: int) -> dict[str, Any]:
    """A row as pymilvus takes it."""
    vector = vector_of(id_, version).tolist()
    return {"id": id_, "owner": id_ % CLIENTS, "version": version, "text": text_of(id_, version), FIELD: vector}


def columns_of(rows: Mapping[int, int]) -> dict[str, Any]:
    """Rows, versions by id, as columns."""
    return {
        "id": np.fromiter(rows, np.int64, len(rows)),
        "owner": [id_ % CLIENTS for id_ in rows],
        "version": list(rows.values()),
        "text": [text_of(id_, version) for id_, version in rows.items()],
        FIELD: np.array([vector_of(id_, version) for id_, version in rows.items()], np.float32).reshape(-1, DIM),
    }


@dataclass
class Model:
    """A client's rows of one collection; a missing row has the version None.

    Args:
        certain: Versions of the rows that must be there, by id.
        doubtful: Versions of which one must be there, of rows whose last write was not answered.
        written: Versions that a row may ever have had, deleted ones too.
        unshown: Rows whose last acknowledged state the server itself has not shown yet.
    """

    certain: dict[int, int] = field(default_factory=dict)
    doubtful: dict[int, set[int | None]] = field(default_factory=dict)
    written: dict[int, set[int]] = field(default_factory=dict)
    unshown: set[int] = field(default_factory=set)

    def begin(self, ids: Iterable[int], version: int | None) -> None:
        """A write is about to be sent: until it is answered, its rows are in doubt."""
        for id_ in ids:
            self.doubtful[id_] = {self.certain.pop(id_, None), version}
            if version is not None:
                self.written.setdefault(id_, set()).add(version)

    def acknowledged(self, ids: Iterable[int], version: int | None) -> None:
        """The write was answered, and done."""
        for id_ in ids:
            del self.doubtful[id_]
            self.unshown.add(id_)
            if version is not None:
                self.certain[id_] = version

    def possible(self, id_: int) -> set[int | None]:
        """The versions that a row may have now."""
        return self.doubtful.get(id_) or {self.certain.get(id_)}

    def unlike(self, states: Mapping[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
        """The rows in a state that the model excludes.

        Args:
            states: Versions of all rows that are there; several if a row is there several times.

        Returns:
            Their versions, by id; () for missing rows.
        """
        known = self.certain.keys() | self.doubtful.keys() | states.keys()
        return {id_: there for id_ in known if not self._can_be(id_, there := states.get(id_, ()))}

    def shown(self, ids: Iterable[int], states: Mapping[int, tuple[int, ...]]) -> bool:
        """Note which rows the server shows as acknowledged; True if all."""
        as_written = {id_ for id_ in ids if self._can_be(id_, states.get(id_, ()))}
        self.unshown -= as_written
        return len(as_written) == len(set(ids))

    def forget(self, ids: Iterable[int]) -> None:
        """Rows are not there any more, whatever was written."""
        for id_ in ids:
            self.certain.pop(id_, None)
            self.doubtful.pop(id_, None)
            self.unshown.discard(id_)

    def settle(self, states: Mapping[int, tuple[int, ...]]) -> None:
        """Replace doubt by what is there.

        Args:
            states: Versions of all rows that are there, of which none are `unlike`.
        """
        for id_ in self.doubtful:
            if id_ in states:
                (self.certain[id_],) = states[id_]
        self.doubtful.clear()

    def _can_be(self, id_: int, there: tuple[int, ...]) -> bool:
        return len(there) <= 1 and (there[0] if there else None) in self.possible(id_)


@dataclass(frozen=True)
class Asked:
    """A search for rows of one client.

    Args:
        query: float32 (DIM,).
        limit: Results.
        even: Only rows of even versions.
        strong: True if it must see all rows acknowledged before it began.
    """

    query: np.ndarray
    limit: int
    even: bool
    strong: bool

    def filter(self, owner: int) -> str:
        """As an expression."""
        return f"owner == {owner}" + (" and version % 2 == 0" if self.even else "")

    def matches(self, version: int) -> bool:
        """True if a row of this version may be found."""
        return not self.even or version % 2 == 0


@dataclass(frozen=True)
class Judged:
    """The errors of one answer.

    Args:
        wrong: Errors that no state of the collection explains, in words.
        unlike: Results that would be right for another state than the model's.
        recall: Of a search; None where it is unknown.
    """

    wrong: Sequence[str] = ()
    unlike: Sequence[str] = ()
    recall: float | None = None


def judge(asked: Asked, hits: Sequence[Mapping[str, Any]], model: Model, owner: int) -> Judged:
    """Compare the answer to a search with brute force over the model.

    Args:
        asked: The search.
        hits: As pymilvus gives them, with `FIELDS`.
        model: The client's model at the time of the call.
        owner: The client.
    """
    wrong, unlike = [], []
    shown: dict[int, int] = {}
    for hit in hits:
        row = hit["entity"]
        id_, version = hit["id"], row["version"]
        if id_ in shown:
            unlike.append(f"row {id_} is twice in one answer")
        shown[id_] = version
        if row["owner"] != owner or id_ % CLIENTS != owner or not asked.matches(version):
            wrong.append(f"row {id_} of version {version} and owner {row['owner']} does not match {asked}")
        may = model.possible(id_) if asked.strong else model.written.get(id_, set())
        if version not in may:
            unlike.append(f"row {id_} is shown in version {version}, and can have {may}")
        if row["text"] != text_of(id_, version):
            wrong.append(f"row {id_} of version {version} has the text {row['text']!r}")
        score = float(scores(asked.query, vector_of(id_, version)[None], METRIC)[0])
        if abs(hit["distance"] - score) > SCORE_ERROR:
            wrong.append(f"row {id_} has the score {hit['distance']}, and its vector {score}")
    distances = [hit["distance"] for hit in hits]
    if any(a < b - SCORE_ERROR for a, b in pairwise(distances)):
        wrong.append("the scores are not in order")
    return Judged(wrong, unlike, _recall(asked, shown, model) if asked.strong else None)


def _recall(asked: Asked, shown: Mapping[int, int], model: Model) -> float | None:
    ids = [id_ for id_, version in model.certain.items() if asked.matches(version)]
    # a doubtful row in the answer takes the place of a certain one
    wanted = min(asked.limit - sum(id_ in model.doubtful for id_ in shown), len(ids))
    if wanted <= 0:
        return None
    vectors = np.array([vector_of(id_, model.certain[id_]) for id_ in ids])
    best = np.argsort(-scores(asked.query, vectors, METRIC), kind="stable")[:wanted]
    return sum(ids[i] in shown for i in best) / wanted
