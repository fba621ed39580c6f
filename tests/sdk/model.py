"""What Milvus must answer to the steps of a scenario, by brute force in numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.small_collections import scores

Step = dict[str, Any]
Row = Mapping[str, Any]
Seen = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Model:
    """Collections in dictionaries: `answer` does a step.

    Args:
        metric: Of the vectors.
        vector: Their field.
        seen: Which vectors (n, d) a query (d) can find, as a mask (n,); all by default.
    """

    def __init__(self, metric: str, vector: str = "embedding", seen: Seen | None = None) -> None:
        self._metric, self._vector = metric, vector
        self._seen = seen or (lambda query, vectors: np.ones(len(vectors), bool))
        self._rows: dict[str, dict[Any, Row]] = {}

    def answer(self, step: Step) -> Any:
        """What a step that is not refused must give; None where that is not of rows."""
        act = getattr(self, f"_{step['do']}", None)
        return act(step) if act else None

    def _insert(self, step: Step) -> Any:
        held = self._rows.setdefault(step["collection"], {})
        held.update({row["id"]: {**row, "partition": step.get("partition", "_default")} for row in step["rows"]})
        return {"count": len(step["rows"]), "ids": [row["id"] for row in step["rows"]]}

    _upsert = _insert

    def _delete(self, step: Step) -> Any:
        held = self._rows[step["collection"]]
        ids = step["ids"] if "ids" in step else [row["id"] for row in self._matching(step)]
        for id_ in ids:
            held.pop(id_, None)

    def _count(self, step: Step) -> Any:
        return len(self._matching(step))

    def _query(self, step: Step) -> Any:
        return [{"id": row["id"], **_shown(row, step)} for row in self._matching(step)]

    def _get(self, step: Step) -> Any:
        return [{"id": row["id"], **_shown(row, step)} for row in self._matching(step) if row["id"] in step["ids"]]

    def _query_iterator(self, step: Step) -> Any:
        return _in_batches(sorted(self._query(step), key=lambda row: row["id"]), step["batch"])

    def _search(self, step: Step) -> Any:
        return [self._found(step, np.array(query, np.float32)) for query in step["vectors"]]

    def _search_iterator(self, step: Step) -> Any:
        return _in_batches(self._search(step)[0], step["batch"])

    def _found(self, step: Step, query: np.ndarray) -> Any:
        rows = self._matching(step)
        vectors = np.array([row[self._vector] for row in rows], np.float32).reshape(len(rows), len(query))
        values, sign = scores(query, vectors, self._metric), -1 if self._metric == "L2" else 1
        params = step.get("params", {})
        kept = self._seen(query, vectors) & (sign * values > sign * params.get("radius", -sign * np.inf))
        kept &= sign * values <= sign * params.get("range_filter", sign * np.inf)
        order = [i for i in np.argsort(-sign * values, kind="stable") if kept[i]]
        if "group_by" in step:
            order = list({rows[i][step["group_by"]]: i for i in reversed(order)}.values())[::-1]
            order.sort(key=lambda i: -sign * values[i])
        chosen = order[step.get("offset", 0) :][: step["limit"]]
        return [
            {
                "id": rows[i]["id"],
                "score": float(values[i]),
                "fields": {name: value for name, value in _shown(rows[i], step).items() if name != "id"},
            }
            for i in chosen
        ]

    def _matching(self, step: Step) -> list[Row]:
        """The rows that a step sees: Milvus's filters of the scenarios are Python's as well."""
        rows: Iterable[Row] = self._rows.get(step["collection"], {}).values()
        if "partitions" in step:
            rows = [row for row in rows if row["partition"] in step["partitions"]]
        words = {"true": True, "false": False}
        return [row for row in rows if not step.get("filter") or eval(step["filter"], words, dict(row))]


def _shown(row: Row, step: Step) -> dict[str, Any]:
    wanted: Sequence[str] = step.get("output_fields", ())
    return {name: value for name, value in row.items() if name != "partition" and (name in wanted or "*" in wanted)}


def _in_batches(rows: list[Any], size: int) -> list[list[Any]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
