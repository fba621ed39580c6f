"""Lookup of an encoder kind's own report: summary lines, recall, 8-bit support."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from alula.encoders import EncoderInfo, Kind


class Report(Protocol):
    """Answers of one encoder kind to the commands, implemented in its package."""

    int8_head: bool  # True if the head keeps its accuracy with 8-bit weights

    def summary(self, info: EncoderInfo) -> list[tuple[str, str]]:
        """Names and values to print after training."""

    def recall(
        self, encoder: Any, queries: npt.NDArray[np.float32], rows: npt.NDArray[np.float32], truth: torch.Tensor
    ) -> dict[str, float]:
        """Recall of an encoder file, by name.

        Args:
            encoder: A loaded encoder of this kind.
            queries: float32 (m, d).
            rows: float32 (n, d).
            truth: int64 (m, 10): positions of the exact neighbours in ``rows``.
        """


def report_of(kind: Kind) -> Report:
    """The report of an encoder kind; imports torch."""
    return cast(Report, import_module(f"alula_exporters.{kind}.report"))
