"""Retry failed calls to Milvus, and limit concurrent calls by its rejections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc
import tenacity
from pymilvus.exceptions import MilvusException

from alula.errors import AlulaError, ServerError
from alula.milvus.connection import milvus_errors, server_words
from alula.milvus.failures import STARTING, Failure, what_failed

FIRST_WAIT, LONGEST_WAIT = 0.1, 15.0  # seconds
START_SECONDS = 10.0
READ_ATTEMPTS = 8  # with waits from 0.05 s to 1 s: 3.6 seconds in all
T = TypeVar("T")


class StoppedError(AlulaError):
    """A write was given up because the load is being stopped."""


def may_pass(error: BaseException) -> bool:
    """True if the same call may succeed later; the cause of a `ServerError` decides."""
    return _failure(error) is not Failure.REFUSED


def retry_policy(
    retry_timeout: float,
    *,
    retry_if: Callable[[BaseException], bool] = may_pass,
    stop_event: threading.Event | None = None,
) -> tenacity.Retrying:
    """The policy of every repeated call: random waits that grow exponentially.

    Args:
        retry_timeout: Seconds after which a failure is raised.
        retry_if: True for errors after which the call is repeated.
        stop_event: Ends the waiting when it is set.
    """
    stop: tenacity.stop.stop_base = tenacity.stop_after_delay(retry_timeout)
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(retry_if),
        wait=tenacity.wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
        stop=stop if stop_event is None else stop | tenacity.stop_when_event_set(stop_event),
        sleep=time.sleep if stop_event is None else tenacity.sleep_using_event(stop_event),
        reraise=True,
    )


def call_with_retries(action: str, call: Callable[[], T], retry_timeout: float) -> T:
    """Make a call until it succeeds.

    Args:
        action: Continues "Milvus could not" in messages.
        call: The call.
        retry_timeout: Seconds after which a failure is raised.

    Raises:
        ServerError: If Milvus refuses for good, or fails for longer than the timeout.
    """
    with milvus_errors(action):
        return retry_policy(retry_timeout)(call)


def call_once_ready(call: Callable[[], T]) -> T:
    """Repeat a call while the engine is still starting; errors as it raises them."""
    return retry_policy(START_SECONDS, retry_if=lambda error: STARTING in str(error))(call)


def repeat_until(complete: Callable[[T], bool], call: Callable[[], T]) -> T:
    """Repeat a call whose result may come late.

    Args:
        complete: True for a result that is whole.
        call: The call.

    Returns:
        The first complete result, or the last one.
    """
    policy = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda result: not complete(result)),
        wait=tenacity.wait_exponential(multiplier=0.05, max=1),
        stop=tenacity.stop_after_attempt(READ_ATTEMPTS),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    return policy(call)


class RateLimiter:
    """Limits concurrent calls, and retries each of them until it succeeds or cannot.

    Additive increase, multiplicative decrease, as TCP does it: a refusal halves the number, a round of successes adds
    one.

    Args:
        limit: The most concurrent calls.
        retry_timeout: Seconds after which the failure of a repeated call is raised.

    Attributes:
        busy: Seconds that calls took, the sum of all threads.
        retries: Repeated calls.
        refusals: Calls that the server refused because it was busy.
        trouble: The last error, "" after a success.
    """

    def __init__(self, limit: int, retry_timeout: float) -> None:
        self.limit = limit
        self.retry_timeout = retry_timeout
        self._allowed = float(limit)
        self._running = 0
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self.busy = 0.0
        self.retries = 0
        self.refusals = 0
        self.trouble = ""

    @property
    def allowed(self) -> int:
        """The number of calls that may run concurrently now."""
        return max(1, int(self._allowed))

    @property
    def slowed(self) -> bool:
        """True while the server's refusals keep the number below the limit."""
        return self.allowed < self.limit

    def stop(self) -> None:
        """End all waiting; no call is repeated any more."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()

    def run(self, action: str, call: Callable[[bool], None]) -> None:
        """Make a call until it succeeds.

        Args:
            action: Continues "Milvus could not" in messages.
            call: The call; its argument is True if an earlier try may have been carried out.

        Raises:
            ServerError: If Milvus refuses for good, or fails for longer than the retry timeout.
            StoppedError: If `stop` was called while it waited.
        """
        in_doubt = False
        began = time.monotonic()
        try:
            for attempt in retry_policy(self.retry_timeout, stop_event=self._stop):
                with attempt, self._slot():
                    try:
                        call(in_doubt)
                    except (MilvusException, grpc.RpcError, ServerError) as error:
                        in_doubt |= self._learn(error)
                        raise
            self._succeeded()
        except (MilvusException, grpc.RpcError, ServerError) as error:
            if self._stop.is_set():
                raise StoppedError("Stopped.") from error
            if may_pass(error) and self.retry_timeout:
                seconds, words = time.monotonic() - began, server_words(_cause(error))
                raise ServerError(
                    f"Milvus could not {action} for {seconds:.0f} seconds ({words}); check that it runs and is well."
                ) from error
            with milvus_errors(action):
                raise

    def _learn(self, error: BaseException) -> bool:
        """Slow down if the server refused; True if the call may have been carried out."""
        failure = _failure(error)
        with self._changed:
            if failure is Failure.BUSY:
                self.refusals += 1
                self._allowed = max(1.0, self._allowed / 2)
            self.retries += failure is not Failure.REFUSED
            self.trouble = server_words(_cause(error))
        return failure is Failure.UNKNOWN

    def _succeeded(self) -> None:
        with self._changed:
            self._allowed = min(float(self.limit), self._allowed + 1 / self._allowed)
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


def _cause(error: BaseException) -> BaseException:
    """The error from Milvus behind an error of Alula's."""
    return error.__cause__ if isinstance(error, ServerError) and error.__cause__ is not None else error


def _failure(error: BaseException) -> Failure:
    cause = _cause(error)
    return what_failed(cause) if isinstance(cause, MilvusException | grpc.RpcError) else Failure.REFUSED
