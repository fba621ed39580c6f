"""Checkpoints: a killed training run resumes and ends in the same encoder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch

from alula.errors import AlulaError, UsageError
from alula_exporters.output_file import atomic_file

SECONDS = 20.0  # between two writes: what a killed run loses at most, besides its last step


class Stateful(Protocol):
    """State that training changes: modules, optimisers, schedules, generators."""

    def state_dict(self) -> dict[str, Any]:
        """The state as tensors, numbers, strings and containers of them."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take the state of `state_dict`."""


class GeneratorState:
    """State of a random generator and of torch's global one, which dropout uses.

    Args:
        generator: The generator that the trainers draw from.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def state_dict(self) -> dict[str, Any]:
        """Both states, as byte tensors."""
        return {"own": self._generator.get_state(), "global": torch.get_rng_state()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take the state of `state_dict`."""
        self._generator.set_state(state["own"])
        torch.set_rng_state(state["global"])


class Checkpoint:
    """The file that a training run can resume from.

    A run has stages (a backbone's, the encoder's); the file contains the state of each that was begun. It is read with
    ``weights_only``, so nothing in it is executed.

    Args:
        path: The file; read now if it exists.
        identity: Data fingerprint, options and versions; a run with another identity cannot resume.
        beside: Further state of the run, independent of the stage: its curves.

    Raises:
        UsageError: If the file is of another run; the message names what differs.
        AlulaError: If the file cannot be read.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any], beside: Mapping[str, Stateful] = MappingProxyType({})
    ) -> None:
        self.path = path
        self._beside = beside
        self._identity = dict(identity)
        self._stages: dict[str, dict[str, Any]] = {}
        self._written = time.monotonic()
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            content = torch.load(self.path, weights_only=True)
            found, self._stages, beside = content["identity"], content["stages"], content["beside"]
        except Exception as error:  # pickle's, zip's and torch's errors have no common base
            raise AlulaError(
                f"The checkpoint {self.path} cannot be read ({type(error).__name__}); remove it, or start again with "
                "restart=True."
            ) from None
        names = found.keys() | self._identity.keys()
        differing = sorted(name for name in names if found.get(name) != self._identity.get(name))
        if differing:
            raise UsageError(
                f"The checkpoint {self.path} is of another training run ({', '.join(differing)} differ); start again "
                "with restart=True, or write to another file (out=...)."
            )

        for name, part in self._beside.items():
            part.load_state_dict(beside[name])

    @property
    def begun(self) -> bool:
        """True if the file contains a stage to resume."""
        return bool(self._stages)

    def step(self, stage: str) -> int:
        """The step at which a stage resumes; 0 if it was not begun."""
        return int(self._stages[stage]["step"]) if stage in self._stages else 0

    def restore(self, stage: str, state: Mapping[str, Stateful]) -> int:
        """Restore a stage's state; returns the step to resume at, 0 if not begun."""
        if stage in self._stages:
            for name, part in state.items():
                part.load_state_dict(self._stages[stage][name])
        return self.step(stage)

    def keep(self, stage: str, step: int, state: Mapping[str, Stateful], *, now: bool = False) -> None:
        """Write a stage's state, if the last writing is some time ago or ``now`` is set."""
        if not now and time.monotonic() - self._written < SECONDS:
            return
        self._stages[stage] = {"step": step, **{name: part.state_dict() for name, part in state.items()}}
        with atomic_file(self.path) as temporary:
            beside = {name: part.state_dict() for name, part in self._beside.items()}
            torch.save({"identity": self._identity, "stages": self._stages, "beside": beside}, temporary)
        self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the file: the run has ended well."""
        self.path.unlink(missing_ok=True)
