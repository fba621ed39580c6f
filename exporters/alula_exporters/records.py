"""Progress callbacks of training: curves for the encoder file, and TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alula.errors import AlulaError
from alula.progress import NO_FIGURES, Figures

if TYPE_CHECKING:
    from alula.progress import Progress
    from alula_exporters.training import ModelT, Trained

POINTS = 200  # of a curve: as many as a picture can show, and a few kB in the file
_DIGITS = 6

Curves = Mapping[str, Mapping[str, list[Any]]]


class Recorder:
    """A `Progress` that records curves, thinned to about `POINTS` points each.

    Use it as ``progress=recorder`` of `train_flops` or `train_drq`, and export ``recorder.add_to(trained)``: then the
    file can draw its own training (``alula card``).
    """

    def __init__(self) -> None:
        self._kept: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self._last: dict[str, tuple[int, dict[str, float]]] = {}
        self._due: dict[tuple[str, str], int] = {}

    def __call__(self, stage: str, done: int, total: int | None, figures: Figures = NO_FIGURES) -> None:
        """Take one report; see `alula.progress.Progress`."""
        numbers = _numbers(figures)
        if not numbers:
            return
        report = done, numbers
        self._last[stage] = report  # it may be the last report
        # asked for each figure, because one that comes at every 50th step must not fall through a grid of every 4th
        if any(done >= self._due.get((stage, name), done) for name in numbers):
            self._kept.setdefault(stage, []).append(report)
            self._due.update({(stage, name): done + math.ceil((total or 0) / POINTS) for name in numbers})

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: a resumed run continues its curves."""
        return {"kept": self._kept, "last": self._last, "due": self._due}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """For a checkpoint."""
        self._kept, self._last, self._due = state["kept"], state["last"], state["due"]

    def curves(self) -> Curves:
        """The curves, ``{stage: {"step": [...], name: [...]}}``.

        All lists of a stage have one length.

        The last report of a stage is always there. Values have 6 significant digits; None means that a step had no
        such figure, or one that is not finite.
        """
        found: dict[str, dict[str, list[Any]]] = {}
        for stage, kept in self._kept.items():
            reports = kept if kept[-1][0] == self._last[stage][0] else [*kept, self._last[stage]]
            names = dict.fromkeys(name for _, figures in reports for name in figures)
            values = {name: [_number(figures.get(name, math.nan)) for _, figures in reports] for name in names}
            found[stage] = {**values, "step": [done for done, _ in reports]}
        return found

    def add_to(self, trained: Trained[ModelT]) -> Trained[ModelT]:
        """The result with the curves in its training summary, for the encoder file.

        Args:
            trained: From `train_flops` or `train_drq`, with this recorder as its ``progress``.
        """
        return replace(trained, training={**trained.training, "curves": self.curves()})


def _number(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None  # JSON knows neither NaN nor infinity


def _numbers(figures: Figures) -> dict[str, float]:
    """The figures that are numbers."""
    return {name: value for name, value in figures.items() if not isinstance(value, str)}


def together(*watchers: Progress) -> Progress:
    """A `Progress` that calls all ``watchers`` in order."""

    def report(stage: str, done: int, total: int | None, figures: Figures = NO_FIGURES) -> None:
        for watcher in watchers:
            watcher(stage, done, total, figures)

    return report


@contextmanager
def tensorboard(folder: Path) -> Iterator[Progress]:
    """A `Progress` that writes every figure as a TensorBoard scalar ``stage/name``.

    Args:
        folder: Where the event file goes; created if missing.

    Raises:
        AlulaError: If the package tensorboard is not installed, or the folder cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (an optional package, slow to import)
    except ModuleNotFoundError as error:
        raise AlulaError(
            f"Writing for TensorBoard (tensorboard=...) needs the package '{error.name}', which is not installed; "
            "install it with: pip install tensorboard"
        ) from None
    try:
        writer = SummaryWriter(str(folder))
    except OSError as error:
        raise AlulaError(f"TensorBoard's folder {folder} cannot be written: {error.strerror}.") from None

    def report(stage: str, done: int, total: int | None, figures: Figures = NO_FIGURES) -> None:
        del total
        for name, value in _numbers(figures).items():
            writer.add_scalar(f"{stage}/{name}", value, done)

    try:
        yield report
    finally:
        writer.close()
