"""Clients use FLOPS_SPARSE and DRQ as if Milvus had them, and find what a brute force finds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

import alula
from alula import encoder_store
from tests.sdk.model import Model
from tests.sdk.scenario import RUNNERS, Run, rows, same, vectors
from tests.tiny_encoders import write_drq, write_flops
from tools.servers.lite import connected

ENCODERS = {
    "lite FLOPS_SPARSE": lambda path: write_flops(path, dim=32, max_nnz=16, metric="COSINE"),
    "lite DRQ": lambda path: write_drq(path, metric="L2"),
    "standalone DRQ": lambda path: write_drq(path, metric="COSINE"),
}
BETWEEN = {"COSINE": (0.1, 0.7), "L2": (20.0, 4.0)}  # worse than the first, not better than the second


@dataclass(frozen=True)
class Place:
    """A server behind the gateway that knows an encoder."""

    server: str
    index_type: str
    encoder: Any
    upstream: str
    gateway: str

    @property
    def model(self) -> Model:
        """What must be found there: through a sparse index, only what shares a dimension with the query."""
        if self.encoder.info.kind != "flops":
            return Model(self.encoder.info.metric)
        dense = self.encoder.dense
        return Model(self.encoder.info.metric, seen=lambda query, vectors: dense(vectors) @ dense(query[None])[0] > 0)

    def run(self, scenario: str, sdk: str, **values: Any) -> Run:
        """A scenario through the gateway."""
        metric = self.encoder.info.metric
        worst, best = BETWEEN[metric]
        told = {"index_type": self.index_type, "encoder": self.encoder.path.stem, "metric": metric}
        told |= {"wrong_metric": "IP", "worst": worst, "best": best}
        return Run.of(scenario, self.server, sdk, self.gateway, **told, **values)


@pytest.fixture(scope="module", params=ENCODERS)
def place(request, tmp_path_factory) -> Place:
    server, index_type = request.param.split()
    encoder = ENCODERS[request.param](tmp_path_factory.mktemp("encoders") / f"clients-{index_type.lower()}.onnx")
    upstream = request.getfixturevalue("lite_server" if server == "lite" else "milvus_server").uri
    with connected(upstream) as direct:
        encoder_store.push(direct, encoder.path, replace=True)
    return Place(server, index_type, encoder, upstream, request.getfixturevalue(f"gateway_to_{server}").uri)


@pytest.fixture(scope="module")
def runs(place):
    """The scenario done by each SDK, both at once."""
    with ThreadPoolExecutor(len(RUNNERS)) as pool:
        done = dict(zip(RUNNERS, pool.map(lambda sdk: place.run("index_types", sdk), RUNNERS), strict=True))
    yield done
    with connected(place.upstream) as direct:
        for run in done.values():
            direct.client.drop_collection(f"{run.prefix}declared")


@pytest.mark.parametrize("sdk", RUNNERS)
def test_the_steps_do_what_the_scenario_says(runs, sdk):
    assert not runs[sdk].surprises()


@pytest.mark.parametrize("sdk", RUNNERS)
def test_clients_find_what_a_brute_force_finds(place, runs, sdk):
    assert not runs[sdk].mistakes(place.model)


@pytest.mark.parametrize("sdk", RUNNERS)
def test_what_a_client_made_is_a_collection_of_alulas(place, runs, sdk):
    run, model = runs[sdk], place.model
    assert not run.mistakes(model)
    name = f"{run.prefix}declared"
    queries = vectors(3, seed=5)
    with connected(place.upstream) as direct:
        collection = alula.Collection.open(direct, name, encoder=place.encoder.path)
        found = collection.search(queries, limit=10, output_fields=["word"], consistency_level="Strong")
    right = model.answer(
        {"do": "search", "collection": name, "vectors": queries, "limit": 10, "output_fields": ["word"]}
    )
    mine = [[{"id": hit.id, "score": hit.score, "fields": dict(hit.fields)} for hit in hits] for hits in found]
    assert same(mine, right)


@pytest.mark.parametrize("sdk", RUNNERS)
def test_clients_use_a_collection_that_was_made_without_the_gateway(place, sdk, collection_name):
    given = rows([0, 60], seed=1, only=["id", "embedding", "word", "year"])
    with connected(place.upstream) as direct:
        collection = alula.Collection.create(
            direct,
            collection_name,
            encoder=place.encoder.path,
            index_type=place.index_type,
            columns=["word:VARCHAR(20)", "year:INT64"],
            consistency_level="Strong",
        )
        columns = {name: [row[name] for row in given] for name in ("id", "word", "year")}
        collection.insert([row["embedding"] for row in given], columns)
    model = place.model
    model.answer({"do": "insert", "collection": collection_name, "rows": given})
    run = place.run("opened", sdk, opened=collection_name)
    assert not run.surprises()
    assert not run.mistakes(model)
    with connected(place.upstream) as direct:
        collection = alula.Collection.open(direct, collection_name, encoder=place.encoder.path)
        assert collection.count() == model.answer({"do": "count", "collection": collection_name})
        direct.client.drop_collection(collection_name)


def test_a_collection_looks_as_one_of_milvus_own(place, runs):
    run = runs["python"]
    create, describe = run.steps[0], next(i for i, step in enumerate(run.steps) if step["do"] == "describe_collection")
    plain = {name: value for name, value in create.items() if name != "properties"}
    plain["collection"] += "_plain"
    steps = [plain, {"do": "describe_collection"}, {"do": "drop_collection"}]
    results = RUNNERS["python"](place.upstream, [{**step, "collection": plain["collection"]} for step in steps])
    seen, expected = run.results[describe]["ok"], results[1]["ok"]
    for about in (seen, expected):
        about["fields"] = [{**field, "field_id": 0} for field in about["fields"]]
    told = ("fields", "description", "auto_id", "enable_dynamic_field", "consistency_level", "num_shards", "aliases")
    assert {name: seen[name] for name in told} == {name: expected[name] for name in told}
