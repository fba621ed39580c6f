"""Writing at the pace that the server keeps: fewer calls at a time when it refuses, more again when it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import tenacity
from pymilvus.exceptions import MilvusException

from alula.errors import AlulaError, ServerError
from alula.milvus import Failure, milvus_errors, server_words, what_failed

FIRST_WAIT, LONGEST_WAIT = 0.1, 15.0  # seconds


class StoppedError(AlulaError):
    """A write was given up because the load is being stopped."""


class RateLimiter:
    """Lets a number of calls run at a time, and makes each of them until it succeeds or cannot.

    As TCP does it, the number is halved by every refusal and grows by one with every round of successes.

    Args:
        most: The most calls at a time.
        patience: Seconds for which one call is made again before the load stops.
    """

    def __init__(self, most: int, patience: float) -> None:
        self.most = most
        self.patience = patience
        self._allowed = float(most)
        self._running = 0
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self.busy = 0.0  # seconds that calls took, those of all threads added
        self.retries = 0
        self.refusals = 0
        self.trouble = ""

    @property
    def allowed(self) -> int:
        """How many calls may run at a time now."""
        return max(1, int(self._allowed))

    @property
    def slowed(self) -> bool:
        """Whether the server has made us slower than we could be."""
        return self.allowed < self.most

    def stop(self) -> None:
        """Let no waiting call be made again."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()

    def make(self, action: str, call: Callable[[bool], None]) -> None:
        """Make a call until it succeeds.

        Args:
            action: What it does, in words that continue "Milvus could not".
            call: The call; told whether an earlier try may have been done already.

        Raises:
            ServerError: If Milvus refuses for good, or for longer than the patience.
            StoppedError: If `stop` was called while it waited.
        """
        in_doubt = False
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=tenacity.wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
            stop=tenacity.stop_after_delay(self.patience) | tenacity.stop_when_event_set(self._stop),
            sleep=tenacity.sleep_using_event(self._stop),
            reraise=True,
        )
        began = time.monotonic()
        try:
            for attempt in waiting:
                with attempt, self._slot():
                    try:
                        call(in_doubt)
                    except (MilvusException, grpc.RpcError, ServerError) as error:
                        in_doubt |= self._learn(_told(error))
                        raise
            self._succeeded()
        except (MilvusException, grpc.RpcError, ServerError) as error:
            if self._stop.is_set():
                raise StoppedError("Stopped.") from error
            if _passes(error) and self.patience:
                seconds, words = time.monotonic() - began, server_words(_told(error))
                raise ServerError(
                    f"Milvus could not {action} for {seconds:.0f} seconds ({words}); check that it runs and is well."
                ) from error
            with milvus_errors(action):
                raise

    def _learn(self, error: BaseException) -> bool:
        """Slow down where the server asks for it; whether the call may have been done."""
        failure = _meaning(error)
        with self._changed:
            if failure is Failure.BUSY:
                self.refusals += 1
                self._allowed = max(1.0, self._allowed / 2)
            self.retries += failure is not Failure.REFUSED
            self.trouble = server_words(error)
        return failure is Failure.UNKNOWN

    def _succeeded(self) -> None:
        with self._changed:
            self._allowed = min(float(self.most), self._allowed + 1 / self._allowed)
            self.trouble = ""
            self._changed.notify_all()

    @contextmanager
    def _slot(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._running < self.allowed or self._stop.is_set())
            if self._stop.is_set():
                raise StoppedError("Stopped.")
            self._running += 1
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._changed:
                self.busy += time.perf_counter() - began
                self._running -= 1
                self._changed.notify_all()


def _told(error: BaseException) -> BaseException:
    """What Milvus said, where an error of ours has been made of it."""
    return error.__cause__ if isinstance(error, ServerError) and error.__cause__ is not None else error


def _meaning(error: BaseException) -> Failure:
    return what_failed(error) if isinstance(error, MilvusException | grpc.RpcError) else Failure.REFUSED


def _passes(error: BaseException) -> bool:
    return _meaning(_told(error)) is not Failure.REFUSED
