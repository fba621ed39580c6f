"""Weight lambda of the regulariser: closed loop on a budget, or quadratic ramp."""

from __future__ import annotations

import math
from typing import Any, Protocol


class RegulariserWeight(Protocol):
    """Source of lambda at every step.

    Attributes:
        mean: Running mean of the costs that were seen.
    """

    mean: float

    def weight(self, cost: float) -> float:
        """Update with the cost of the current batch; returns lambda."""

    def state_dict(self) -> dict[str, Any]:
        """Numbers that a checkpoint keeps."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take the numbers of `state_dict`."""


class _Resumable:
    """All attributes are plain numbers, and all are the state."""

    def state_dict(self) -> dict[str, Any]:
        """See `RegulariserWeight`."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """See `RegulariserWeight`."""
        vars(self).update(state)


class FlopsController(_Resumable):
    """Controls log lambda in a closed loop until the cost reaches the budget.

    The cost is F, or the mean number of non-zeros. The target moves geometrically from the first cost that was seen to
    the budget over the first half of training. A proportional and an integral term act on the log ratio of a running
    mean of the cost to that target.

    Args:
        budget: The cost to end at.
        steps: Steps of the whole run.
        start: lambda at the first step.
    """

    PROPORTIONAL = 0.5
    INTEGRAL = 64.0  # divided by the number of steps, so that a short run reaches as far as a long one
    MEMORY = 0.9
    LIMIT = 12.0  # |log lambda|: keeps the integral from winding up while the budget is out of reach

    def __init__(self, budget: float, steps: int, start: float = 1.0) -> None:
        self._budget = budget
        self._ramp = max(1, steps // 2)
        self._gain = self.INTEGRAL / steps
        self._integral = math.log(start)
        self._first: float | None = None
        self.mean = math.nan
        self._step = 0

    def weight(self, cost: float) -> float:
        """Take the cost of the current batch, return lambda for it.

        Args:
            cost: The unbiased F of this step's rows, or their mean non-zeros.
        """
        cost = max(cost, 1e-9)
        if self._first is None:
            self._first = self.mean = cost
        self.mean = self.MEMORY * self.mean + (1 - self.MEMORY) * cost
        progress = min(1.0, self._step / self._ramp)
        target = math.exp((1 - progress) * math.log(self._first) + progress * math.log(self._budget))
        self._step += 1
        error = math.log(self.mean / target)
        self._integral = min(self.LIMIT, max(-self.LIMIT, self._integral + self._gain * error))
        return math.exp(min(self.LIMIT, max(-self.LIMIT, self._integral + self.PROPORTIONAL * error)))


class QuadraticRamp(_Resumable):
    """lambda(t) = lambda min(1, t / T)^2: the schedule of Paria et al., ICLR 2020.

    The quadratic growth lets the encoder learn what is near before rows become sparse, so that fewer dimensions die.

    Args:
        weight: lambda in the end.
        ramp: Steps T until then.
    """

    def __init__(self, weight: float, ramp: int) -> None:
        self._weight = weight
        self._ramp = ramp
        self._step = 0
        self.mean = math.nan

    def weight(self, cost: float) -> float:
        """Return lambda of this step; the cost is only averaged, for show.

        Args:
            cost: F of this step's rows, or their mean non-zeros.
        """
        memory = FlopsController.MEMORY
        self.mean = cost if math.isnan(self.mean) else memory * self.mean + (1 - memory) * cost
        self._step += 1
        return self._weight * min(1.0, self._step / self._ramp) ** 2
