"""Searches take turns until no figure falls any more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.papers import timing


@pytest.fixture
def spend(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass on the clock that the measurement reads."""
    now = [0.0]
    monkeypatch.setattr(timing, "thread_time", lambda: now[0])

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    return pass_time


def test_the_quiet_rounds_count_and_turns_are_taken(spend: Callable[[float], None]) -> None:
    asked: list[tuple[str, int]] = []

    def disturbed(query: int) -> None:
        asked.append(("disturbed", query))
        spend(0.5 if len(asked) < 60 else 0.003)

    def even(query: int) -> None:
        asked.append(("even", query))
        spend(0.002)

    times, unstable = timing.milliseconds({"disturbed": disturbed, "even": even}, 30)
    assert times == pytest.approx({"disturbed": 3, "even": 2})
    assert unstable == []
    # 20 queries each, then the last 10, and the first of each chunk once more, untimed
    assert [name for name, _ in asked[:42]] == ["disturbed"] * 21 + ["even"] * 21
    assert {query for name, query in asked if name == "even"} == set(range(30))


def test_what_does_not_settle_is_named(spend: Callable[[float], None]) -> None:
    seconds = [1.0]

    def faster_each_time(_: int) -> None:
        seconds[0] *= 0.9
        spend(seconds[0])

    _, unstable = timing.milliseconds({"falling": faster_each_time, "even": lambda _: spend(0.1)}, 2)
    assert unstable == ["falling"]
