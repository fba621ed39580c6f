"""Calls are made again when that can help, never when it cannot, and no more at a time than the server takes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from pymilvus.exceptions import MilvusException

from alula.errors import ServerError
from alula.milvus import Failure, retrying, server_words, what_failed
from alula.milvus.retrying import RateLimiter, StoppedError, repeat_until

LIMIT = MilvusException(8, "request is rejected by grpc RateLimiter middleware: rate limit exceeded[rate=524288]", 49)
LOST = MilvusException(1, "<_MultiThreadedRendezvous of RPC that terminated with: StatusCode.UNAVAILABLE")
STACK = (
    "stack trace: /a/b/stack_trace.go:51 github.com/x/tracer.StackTrace\n"
    + "/a/c.go:5 github.com/y.(*C[...]).Call\n" * 9
)
DENIED = MilvusException(1402, "PrivilegeInsert: permission deny")


class Rpc(grpc.RpcError):
    def __init__(self, code, details=""):
        self._code, self._details = code, details

    def code(self):
        return self._code

    def details(self):
        return self._details


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(retrying, "LONGEST_WAIT", 0.01)


def failing(*errors):
    """A call that fails with each error in turn and then succeeds; and the arguments that it was given."""
    left, doubts = list(errors), []

    def call(in_doubt):
        doubts.append(in_doubt)
        if left:
            raise left.pop(0)

    return call, doubts


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (LIMIT, Failure.BUSY),
        (MilvusException(2000, 'Assert "init_flag_ == true" => Mmap manager has not been init.'), Failure.UNKNOWN),
        (
            MilvusException(9, "quota exceeded[reason=memory quota exceeded, please allocate more resources]", 48),
            Failure.BUSY,
        ),
        (
            MilvusException(9, "quota exceeded[reason=the writing has been deactivated by the administrator]"),
            Failure.REFUSED,
        ),
        (Rpc(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests"), Failure.BUSY),
        (Rpc(grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max (9 vs. 4)"), Failure.REFUSED),
        (LOST, Failure.UNKNOWN),
        (Rpc(grpc.StatusCode.UNAVAILABLE), Failure.UNKNOWN),
        (Rpc(grpc.StatusCode.DEADLINE_EXCEEDED), Failure.UNKNOWN),
        (MilvusException(1, "service not ready[Proxy=1, State=Initializing]"), Failure.UNKNOWN),
        (MilvusException(65535, f"attempt #0: {STACK} no answer"), Failure.UNKNOWN),
        (DENIED, Failure.REFUSED),
        (MilvusException(100, "collection not found[collection=x]"), Failure.REFUSED),
        (MilvusException(109, "collection schema mismatch[collection=x]"), Failure.BUSY),
        (MilvusException(1100, "the length of the vector is wrong"), Failure.REFUSED),
        (Rpc(grpc.StatusCode.UNAUTHENTICATED), Failure.REFUSED),
    ],
)
def test_what_failures_mean(error, failure):
    assert what_failed(error) is failure


def test_stacks_of_calls_are_left_out_of_sentences():
    assert (
        server_words(MilvusException(65535, f"attempt #0: {STACK.strip()}: node offline")) == "attempt #0: node offline"
    )


def test_a_wrapped_call_error_is_seen():
    error = MilvusException(message="anything")
    error.__cause__ = Rpc(grpc.StatusCode.UNAVAILABLE)
    assert what_failed(error) is Failure.UNKNOWN


def test_only_a_lost_answer_leaves_doubt():
    call, doubts = failing(LIMIT, LIMIT, LOST, LIMIT)
    limiter = RateLimiter(4, 30)
    limiter.run("write", call)
    assert doubts == [False, False, False, True, True]
    assert (limiter.retries, limiter.refusals) == (4, 3)


def test_what_is_refused_for_good_is_not_tried_again():
    call, doubts = failing(DENIED)
    with pytest.raises(ServerError, match="could not write rows: PrivilegeInsert: permission deny"):
        RateLimiter(4, 30).run("write rows", call)
    assert doubts == [False]


def test_the_retry_timeout_ends():
    call, doubts = failing(*[LOST] * 10_000)
    with pytest.raises(ServerError, match=r"could not write rows for \d+ seconds .*UNAVAILABLE"):
        RateLimiter(4, 0.3).run("write rows", call)
    assert len(doubts) > 3


def test_fewer_calls_at_a_time_after_refusals_and_more_again_after_successes():
    limiter = RateLimiter(8, 30)
    limiter.run("write", failing(LIMIT, LIMIT)[0])
    assert limiter.slowed
    assert 2 <= limiter.allowed <= 3
    running, most, lock = 0, [], threading.Lock()

    def call(_):
        nonlocal running
        with lock:
            running += 1
            most.append(running)
        time.sleep(0.005)
        with lock:
            running -= 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: limiter.run("write", call), range(10)))
        early = max(most)
        list(pool.map(lambda _: limiter.run("write", call), range(100)))
    assert early < 8
    assert max(most) == 8
    assert not limiter.slowed


def test_a_stop_ends_the_waiting():
    call, _ = failing(*[LOST] * 10_000)
    limiter = RateLimiter(1, 60)
    threading.Timer(0.2, limiter.stop).start()
    with pytest.raises(StoppedError):
        limiter.run("write", call)
    with pytest.raises(StoppedError):
        limiter.run("write", lambda _: None)


@pytest.mark.parametrize(("attempts", "found"), [(1, 1), (2, 2), (9, 3)])
def test_a_call_is_repeated_until_its_result_is_complete(monkeypatch, attempts, found):
    monkeypatch.setattr(retrying, "READ_ATTEMPTS", attempts)
    results = iter(range(1, 100))
    assert repeat_until(lambda result: result >= 3, lambda: next(results)) == found
    assert next(results) == found + 1
