"""Evaluation: exact neighbours and recall."""

from alula.evaluation.recall import exact_neighbours, recall

__all__ = ["exact_neighbours", "recall"]
