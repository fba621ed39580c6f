"""What is read from the bytes of an answer and of a request, against protobuf's own parsing."""

from __future__ import annotations

import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from alula.gateway.status import refused, status_of

METHODS = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods_by_name
NO_STATUS_FIRST = {"Dummy", "RegisterLink", "GetComponentStates", "GetReplicateInfo", "CreateReplicateStream"}
REFUSAL = common_pb2.Status(code=1100, error_code=1, reason="no such field: ünïcode " * 20)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_methods_status_is_found(method):
    kind = METHODS[method].output_type
    answer = GetMessageClass(kind)()
    if kind is common_pb2.Status.DESCRIPTOR:
        answer = REFUSAL
    elif method not in NO_STATUS_FIRST:
        field = next(field for field in kind.fields if field.message_type is common_pb2.Status.DESCRIPTOR)
        getattr(answer, field.name).CopyFrom(REFUSAL)
    found = status_of(method, answer.SerializeToString())
    assert found == (None if method in NO_STATUS_FIRST else REFUSAL)
    assert refused(found) == (method not in NO_STATUS_FIRST)


def test_a_status_before_a_large_answer():
    scores = schema_pb2.SearchResultData(scores=[0.5] * 100_000)
    good = milvus_pb2.SearchResults(results=scores)
    assert not refused(status_of("Search", good.SerializeToString()))
    bad = milvus_pb2.SearchResults(status=REFUSAL, results=scores)
    assert status_of("Search", bad.SerializeToString()) == REFUSAL


def test_the_old_code_alone_is_a_refusal_too():
    assert refused(common_pb2.Status(error_code=common_pb2.UnexpectedError))
    assert not refused(common_pb2.Status(reason="ok"))
    assert not refused(None)


@given(st.sampled_from(sorted(METHODS)), st.binary(max_size=200))
def test_bytes_that_are_no_message_break_nothing(method, data):
    status_of(method, data)
