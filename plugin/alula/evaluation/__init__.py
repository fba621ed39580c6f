"""Evaluation: exact neighbours and recall."""

from alula.evaluation.recall import NearestSoFar, RecallEstimate, estimate_recall, exact_neighbours, recall

__all__ = ["NearestSoFar", "RecallEstimate", "estimate_recall", "exact_neighbours", "recall"]
