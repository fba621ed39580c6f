"""Training loop common to all trainers: reproducible, resumable, with progress."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from alula.errors import AlulaError
from alula.progress import Progress, silent
from alula_exporters.backbones.base import Backbone, VectorBackbone, compute_device
from alula_exporters.backbones.onnx import Front
from alula_exporters.checkpoint import Checkpoint, Stateful
from alula_exporters.data import F32, Inputs

ModelT = TypeVar("ModelT", bound=nn.Module)


@dataclass(frozen=True)
class Trained(Generic[ModelT]):
    """A trained module and what goes into its file.

    Args:
        model: The torch module, in evaluation mode.
        training: The training summary of `alula.encoders.EncoderInfo`.
        held_out: Rows that training did not see, for the parity figures: vectors float32 (h, d), or the backbone's
            raw inputs.
        backbone: Embeds raw inputs, in evaluation mode; None if vectors were given.
    """

    model: ModelT
    training: Mapping[str, Any]
    held_out: Inputs
    backbone: Backbone | None = None

    def front(self) -> Front | None:
        """The backbone as the first part of an encoder file; see `Backbone.front`."""
        return None if self.backbone is None else self.backbone.front()

    def head(self) -> Trained[ModelT]:
        """The result without its backbone, for a file that takes the backbone's vectors."""
        if self.backbone is None:
            return self
        return replace(self, held_out=self.backbone.embed(self.held_out), backbone=None)

    def parity_rows(self) -> tuple[F32, F32]:
        """Held-out rows for comparing the file with `model`, and a zero vector.

        Returns:
            Inputs of the file's head, float32 (n, d), and of `model`, float32 (n, e). They differ only if a backbone is
            between given vectors and the head.
        """
        between = self.backbone if isinstance(self.backbone, VectorBackbone) else None
        given = self.held_out if self.backbone is None or between else self.backbone.embed(self.held_out)
        rows = np.concatenate([given, np.zeros((1, given.shape[1]), np.float32)])
        return rows, between.embed(rows) if between else rows


@contextmanager
def reproducible(seed: int) -> Iterator[torch.Generator]:
    """Seed torch and forbid non-deterministic operators.

    The same seed, data and machine then give the same weights.

    New tensors lie on the GPU where there is one; there torch only warns of operators without a fixed order.

    Args:
        seed: Seed of the generator handed out.
    """
    device = compute_device()
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    try:
        with torch.random.fork_rng(devices=[]), device:
            torch.manual_seed(seed)
            yield torch.Generator(device).manual_seed(seed)
    finally:
        torch.use_deterministic_algorithms(before)


def warmed_up_cosine(step: int, steps: int, warm_up: float) -> float:
    """A learning rate's share of its highest: a linear warm-up, under a cosine decay.

    Args:
        step: Number of the step, from 0.
        steps: Steps of the stage.
        warm_up: Steps of the warm-up; 0 for none.
    """
    return min(1.0, (step + 1) / max(1.0, warm_up)) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))


class EarlyStopping:
    """Ends a stage when validation stops improving, and restores the best weights.

    Args:
        model: Whose weights are kept.
        measure: The metric on rows that are neither trained on nor reported on; larger is better.
        patience: Measurements without improvement until the stage ends.
        every: Steps between measurements.
        after: Steps before the first one.
    """

    def __init__(
        self, model: nn.Module, measure: Callable[[], float], *, patience: int, every: int, after: int = 0
    ) -> None:
        self._model = model
        self._measure = measure
        self._patience = patience
        self._every = every
        self._after = after
        self._misses = 0
        self._best: dict[str, Any] | None = None
        self.best = -math.inf

    def stop(self, step: int) -> bool:
        """Measure if it is time to; whether the stage should end after ``step`` steps."""
        if step <= self._after or step % self._every:
            return False
        value = self._measure()
        if value > self.best:
            self.best, self._misses = value, 0
            self._best = copy.deepcopy(self._model.state_dict())
        else:
            self._misses += 1
        return self._misses >= self._patience

    def finish(self) -> None:
        """Put the best weights back."""
        if self._best is not None:
            self._model.load_state_dict(self._best)

    def state_dict(self) -> dict[str, Any]:
        """For `Checkpoint`."""
        return {"misses": self._misses, "best": self.best, "weights": self._best}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """For `Checkpoint`."""
        self._misses, self.best, self._best = state["misses"], state["best"], state["weights"]


class Figures(dict[str, float]):
    """Figures of a run by name, which a checkpoint keeps."""

    def average(self, name: str, value: float) -> None:
        """Take a value into a running mean."""
        self[name] = 0.95 * self[name] + 0.05 * value if name in self else value

    def state_dict(self) -> dict[str, Any]:
        """For `Checkpoint`."""
        return dict(self)

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """For `Checkpoint`."""
        self.update(state)


@dataclass
class TrainingStage:
    """One optimisation of a training run, and all that it changes.

    Args:
        name: Its name in progress reports and in the checkpoint.
        optimizer: Holds the parameters.
        schedule: Stepped once per step.
        steps: Number of steps.
        clip: Largest norm of the gradient.
        state: Further state by name: modules, generators, controllers.
        after_step: Called after every update, for instance to go back to a constraint.
        stopping: Ends the stage early.
    """

    name: str
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    steps: int
    clip: float
    state: Mapping[str, Stateful] = field(default_factory=dict)
    after_step: Callable[[], None] = lambda: None
    stopping: EarlyStopping | None = None

    @property
    def everything(self) -> dict[str, Stateful]:
        """All that a checkpoint must hold."""
        parts: dict[str, Stateful] = {**self.state, "optimizer": self.optimizer, "schedule": self.schedule}
        return parts if self.stopping is None else {**parts, "stopping": self.stopping}


def fit(
    stage: TrainingStage,
    step: Callable[[int], tuple[Tensor, Mapping[str, float]]],
    *,
    progress: Progress = silent,
    checkpoint: Checkpoint | None = None,
) -> int:
    """Run one stage of a training run, or what a checkpoint leaves of it.

    Args:
        stage: The stage to run.
        step: Takes the step's number; returns the loss (scalar) and figures to show.
        progress: Called after every step.
        checkpoint: Checkpoint to resume from and to write to regularly.

    Returns:
        The steps taken, fewer than asked for where the stage stopped early.

    Raises:
        AlulaError: If the loss stops being a finite number.
    """
    parameters = [parameter for group in stage.optimizer.param_groups for parameter in group["params"]]
    number = checkpoint.restore(stage.name, stage.everything) if checkpoint else 0
    total, stopped = stage.steps, False
    while number < total and not stopped:
        stage.optimizer.zero_grad(set_to_none=True)
        loss, figures = step(number)
        if not torch.isfinite(loss):
            raise AlulaError(
                f"Training diverged: the loss at step {number} is not a finite number. A lower learning rate may "
                "help; rows of extreme length are a common cause."
            )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, stage.clip)
        stage.optimizer.step()
        stage.schedule.step()
        stage.after_step()
        number += 1
        stopped = stage.stopping is not None and stage.stopping.stop(number)
        progress(stage.name, number, total, figures)
        if checkpoint and number < total and not stopped:
            checkpoint.keep(stage.name, number, stage.everything)
    if stage.stopping is not None:
        stage.stopping.finish()
    if checkpoint:
        checkpoint.keep(stage.name, total, stage.everything, now=True)
    return number
