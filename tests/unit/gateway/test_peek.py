"""Which collection a request is about is told from its first bytes, and never by failing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from alula.gateway.peek import NameFields, peek

INSERT = NameFields.of(milvus_pb2.InsertRequest.DESCRIPTOR)
NAMES = st.text(max_size=300)


@given(NAMES, NAMES, st.binary(max_size=200))
def test_names_are_those_that_protobuf_reads(database, collection, rest):
    request = milvus_pb2.SearchRequest(
        base=common_pb2.MsgBase(msgID=1 << 60, timestamp=3), db_name=database, collection_name=collection
    )
    request.placeholder_group = rest
    found = peek(request.SerializeToString(), NameFields.of(milvus_pb2.SearchRequest.DESCRIPTOR))
    assert found == (database, collection)


def test_requests_without_a_database_or_a_collection():
    request = milvus_pb2.DropDatabaseRequest(db_name="d").SerializeToString()
    assert peek(request, NameFields.of(milvus_pb2.DropDatabaseRequest.DESCRIPTOR)) == ("d", "")
    request = milvus_pb2.GetVersionRequest().SerializeToString()
    assert peek(request, NameFields.of(milvus_pb2.GetVersionRequest.DESCRIPTOR)) == ("", "")


def test_the_last_value_of_a_field_counts_as_in_protobuf():
    one, two = (milvus_pb2.InsertRequest(collection_name=name).SerializeToString() for name in ("one", "two"))
    assert milvus_pb2.InsertRequest.FromString(one + two).collection_name == "two"
    assert peek(one + two, INSERT)[1] == "two"


@given(st.binary(max_size=100))
def test_rubbish_is_read_without_failing(rubbish):
    database, collection = peek(rubbish, INSERT)
    assert isinstance(database, str)
    assert isinstance(collection, str)


def test_the_last_value_counts_wherever_it_is():
    """A name at the end of a request, behind its other fields, is the one that Milvus takes."""
    first = milvus_pb2.SearchRequest(collection_name="plain", dsl="x > 3", placeholder_group=b"q" * 1000)
    last = milvus_pb2.SearchRequest(db_name="other", collection_name="hidden")
    both = first.SerializeToString() + last.SerializeToString()
    assert milvus_pb2.SearchRequest.FromString(both).collection_name == "hidden"
    assert peek(both, NameFields.of(milvus_pb2.SearchRequest.DESCRIPTOR)) == ("other", "hidden")


def test_requests_of_very_many_fields_are_left_to_a_parser():
    request = milvus_pb2.InsertRequest(collection_name="words").SerializeToString()
    assert peek(request + b"\x38\x01" * 4000, INSERT) == ("", "words")
    assert peek(request + b"\x38\x01" * 5000, INSERT) == ("", "")
    assert peek(request + b"\x3b\x3c", INSERT) == ("", ""), "a group, whose end is not looked for"
