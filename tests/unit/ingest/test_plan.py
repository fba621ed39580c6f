"""A journal resumes only the load that it is of, and one of an earlier version still does."""

from __future__ import annotations

import dataclasses

import pytest

from alula.ingest.plan import LoadPlan

PLAN = LoadPlan(
    server="http://localhost",
    collection="words",
    partition=None,
    encoder="abc",
    source="x.parquet",
    fingerprint="stamps:content",
    engine="local",
    replace=False,
    batch_rows=10,
    via="insert",
    stage=None,
    id="first",
    identity="17",
)


def test_a_plan_survives_its_journal():
    assert LoadPlan.from_json(PLAN.to_json()) == PLAN


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({}, None),
        ({"id": "second"}, None),
        ({"identity": "18"}, "identity"),
        ({"identity": ""}, None),
        ({"fingerprint": "stamps:other"}, "fingerprint"),
        ({"fingerprint": "other:content"}, "fingerprint"),
        ({"fingerprint": "stamps"}, None),
        ({"partition": "p"}, "partition"),
    ],
)
def test_what_makes_another_load(change, differs):
    assert PLAN.differs_from(dataclasses.replace(PLAN, **change)) == differs


def test_a_plan_of_an_earlier_version():
    old = {name: value for name, value in PLAN.to_json().items() if name != "identity"} | {"fingerprint": "stamps"}
    assert LoadPlan.from_json(old).differs_from(PLAN) is None
