"""Clients use FLOPS_SPARSE and DRQ as if Milvus had them, and find what a brute force finds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import alula
from alula.servers import encoder_store
from tests.gateway.model import Model
from tests.gateway.scenario import RUNNERS, Run
from tests.tiny_encoders import write_drq, write_flops

ENCODERS = {
    "lite FLOPS_SPARSE": lambda path: write_flops(path, dim=32, max_nnz=16, metric="COSINE"),
    "lite DRQ": lambda path: write_drq(path, metric="L2"),
    "standalone DRQ": lambda path: write_drq(path, metric="COSINE"),
}
# worse than the first, not better than the second
BETWEEN = {"COSINE": (0.1, 0.7), "L2": (20.0, 4.0)}


@pytest.fixture(scope="module", params=ENCODERS)
def done(request, tmp_path_factory):
    """The scenario done by each SDK through the gateway, with the encoder and the address of Milvus."""
    server, index_type = request.param.split()
    encoder = ENCODERS[request.param](tmp_path_factory.mktemp("encoders") / f"{index_type.lower()}.onnx")
    upstream = request.getfixturevalue("lite_server" if server == "lite" else "milvus_server").uri
    gateway = request.getfixturevalue(f"gateway_to_{server}").uri
    with alula.connect(upstream) as connected:
        encoder_store.push(connected, encoder.path, replace=True)
    metric = encoder.info.metric
    worst, best = BETWEEN[metric]
    values = {"index_type": index_type, "encoder": encoder.path.stem, "metric": metric, "worst": worst, "best": best}
    values["wrong_metric"] = "IP"

    def run(sdk):
        return Run.of("index_types", server, sdk, gateway, **values)

    with ThreadPoolExecutor(len(RUNNERS)) as pool:
        return dict(zip(RUNNERS, pool.map(run, RUNNERS), strict=True)), encoder, upstream


def seen_by(encoder):
    """Which rows a query can find: through a sparse index those that share a dimension."""
    if encoder.info.kind != "flops":
        return None
    return lambda query, vectors: (encoder.dense(vectors) @ encoder.dense(query[None])[0]) > 0


@pytest.mark.parametrize("sdk", RUNNERS)
def test_the_steps_do_what_the_scenario_says(done, sdk):
    assert not done[0][sdk].surprises()


@pytest.mark.parametrize("sdk", RUNNERS)
def test_clients_find_what_a_brute_force_finds(done, sdk):
    runs, encoder, _ = done
    assert not runs[sdk].mistakes(Model(encoder.info.metric, seen=seen_by(encoder)))
