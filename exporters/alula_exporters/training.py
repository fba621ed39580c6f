"""What both trainers share: a reproducible loop, its progress, and the result's shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from alula.errors import AlulaError

ModelT = TypeVar("ModelT", bound=nn.Module)


class Progress(Protocol):
    """Told about every step of a training run."""

    def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Take one report.

        Args:
            stage: What is going on, in a word or two.
            done: Steps done.
            total: Steps in this stage.
            figures: What to show beside the bar, by name.
        """


def silent(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    """A `Progress` that shows nothing."""


@dataclass(frozen=True)
class Trained(Generic[ModelT]):
    """A trained module and what goes into its file.

    Args:
        model: The torch module, in evaluation mode.
        training: The training summary of `alula.encoders.EncoderInfo`.
        held_out: float32 (h, d): rows that training did not see, for the parity figures.
    """

    model: ModelT
    training: Mapping[str, Any]
    held_out: npt.NDArray[np.float32]


@contextmanager
def reproducible(seed: int) -> Iterator[torch.Generator]:
    """Same seed, data and machine, same weights: seed torch and forbid its operators that add up in random order.

    Args:
        seed: Seed of the generator handed out.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield torch.Generator().manual_seed(seed)
    finally:
        torch.use_deterministic_algorithms(before)


def fit(
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    step: Callable[[int], tuple[Tensor, Mapping[str, float]]],
    *,
    steps: int,
    clip: float,
    after_step: Callable[[], None] = lambda: None,
    progress: Progress = silent,
    stage: str = "training",
) -> None:
    """Run the optimiser.

    Args:
        optimizer: Holds the parameters.
        schedule: Stepped once per step.
        step: Takes the step's number; returns the loss (scalar) and figures to show.
        steps: How many.
        clip: Largest norm of the gradient.
        after_step: Called after every update, for instance to go back to a constraint.
        progress: Told about every step.
        stage: The stage's name for ``progress``.

    Raises:
        AlulaError: If the loss stops being a finite number.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss, figures = step(number)
        if not torch.isfinite(loss):
            raise AlulaError(f"Training went astray: the loss at step {number} is not a finite number.")
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        schedule.step()
        after_step()
        progress(stage, number + 1, steps, figures)
