"""Clients of plain Milvus get the same answers with the gateway in front of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sdk.scenario import RUNNERS, Run, differences


@pytest.fixture(scope="module", params=["lite", "standalone"])
def runs(request: pytest.FixtureRequest) -> dict[tuple[str, str], Run]:
    """The scenario done by each SDK, straight and through the gateway."""
    direct = request.getfixturevalue("lite_server" if request.param == "lite" else "milvus_server").uri
    gateway = request.getfixturevalue(f"gateway_to_{request.param}").uri
    which = [(sdk, way) for sdk in RUNNERS for way in ("straight", "gateway")]

    def run(sdk: str, way: str) -> Run:
        return Run.of("plain", request.param, sdk, direct if way == "straight" else gateway)

    with ThreadPoolExecutor(len(which)) as pool:  # all at once: they wait for the server most of the time
        return dict(zip(which, pool.map(run, *zip(*which, strict=True)), strict=True))


@pytest.mark.parametrize("sdk", RUNNERS)
def test_the_steps_do_what_the_scenario_says(runs, sdk):
    assert not runs[sdk, "straight"].surprises()


@pytest.mark.parametrize("sdk", RUNNERS)
def test_the_gateway_changes_no_answer(runs, sdk):
    assert not differences(runs[sdk, "straight"], runs[sdk, "gateway"])


def test_both_sdks_find_the_same(runs):
    assert not differences(runs["node", "straight"], runs["python", "straight"])
