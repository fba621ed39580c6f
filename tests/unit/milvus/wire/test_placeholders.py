"""Queries on the wire: what pymilvus and the Node SDK send, and bytes that nobody should send."""

import random
import struct

import numpy as np
import pytest
from pymilvus.client.prepare import Prepare
from pymilvus.grpc_gen import common_pb2

from alula.errors import AlulaError, DataError, UsageError
from alula.milvus.wire import placeholders
from tests.tiny_encoders import random_vectors

TYPES = common_pb2.PlaceholderType


def group(type_, values, tag="$0"):
    value = common_pb2.PlaceholderValue(tag=tag, type=type_, values=values)
    return common_pb2.PlaceholderGroup(placeholders=[value]).SerializeToString()


def test_reads_the_vectors_that_pymilvus_sends():
    vectors = random_vectors(5)
    for sent in (vectors, vectors.tolist(), list(vectors)):
        read = placeholders.read(Prepare._prepare_placeholder_str(list(sent)))
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, vectors)


def test_reads_half_precision():
    vectors = random_vectors(4)
    halves = vectors.astype(np.float16)
    read = placeholders.read(group(TYPES.Float16Vector, [row.tobytes() for row in halves]))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, halves.astype(np.float32))

    upper = [b"".join(struct.pack("<f", value)[2:] for value in row) for row in vectors]  # bfloat16, cut by hand
    read = placeholders.read(group(TYPES.BFloat16Vector, upper))
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, vectors, rtol=2**-7)


def test_reads_the_texts_that_pymilvus_sends():
    texts = ["two words", "", "Größe 東京"]
    assert placeholders.read(Prepare._prepare_placeholder_str(texts)) == texts


def test_writes_the_bytes_that_pymilvus_writes():
    vectors = random_vectors(3)
    assert placeholders.write(vectors) == Prepare._prepare_placeholder_str(list(vectors))
    halves = Prepare._prepare_placeholder_str(list(vectors.astype(np.float16)))
    assert placeholders.write(vectors, "FLOAT16_VECTOR") == halves
    binary = [bytes([1, 2, 255]), bytes([0, 0, 7])]
    assert placeholders.write(binary) == Prepare._prepare_placeholder_str(binary)
    sparse = [{7: 0.5, 2: 1.25, 2**32 - 2: 3.0}, {0: 1e-6}]
    assert placeholders.write(sparse) == Prepare._prepare_placeholder_str(sparse)


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (b"no protobuf", DataError, "not a placeholder group"),
        (group(TYPES.FloatVector, [bytes(32)])[:-1], DataError, "cut off"),
        (b"", UsageError, "0 placeholders"),
        (group(TYPES.FloatVector, [bytes(32)]) * 2, UsageError, "2 placeholders"),
        (group(TYPES.FloatVector, []), UsageError, "0 queries"),
        (group(TYPES.FloatVector, [b""] * 16385), UsageError, "16,385 queries"),
        (group(TYPES.FloatVector, [b""]), DataError, "Query 0 has 0 bytes"),
        (group(TYPES.FloatVector, [bytes(31)]), DataError, "numbers of 4 bytes"),
        (group(TYPES.BFloat16Vector, [bytes(31)]), DataError, "numbers of 2 bytes"),
        (group(TYPES.FloatVector, [bytes(32), bytes(28)]), DataError, "Query 1 has 28 bytes and query 0 has 32"),
        (group(TYPES.VarChar, [b"good", b"\xff\xfe"]), DataError, "Query 1 is a text that is not UTF-8"),
        (group(TYPES.BinaryVector, [bytes(4)]), UsageError, "BinaryVector"),
        (group(TYPES.EmbListFloatVector, [bytes(32)]), UsageError, "EmbListFloatVector"),
        (group(77, [bytes(32)]), UsageError, "unknown type (77)"),
    ],
)
def test_refuses_what_are_no_queries(bad, error, says):
    with pytest.raises(error) as raised:
        placeholders.read(bad)
    assert says in str(raised.value)


def test_damaged_bytes_give_queries_or_a_sentence():
    rng = random.Random(1)
    whole = group(TYPES.FloatVector, [row.tobytes() for row in random_vectors(3)])
    for _ in range(3000):
        damaged = bytearray(whole[: rng.randrange(len(whole) + 1)])
        for _ in range(rng.randrange(4)):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            read = placeholders.read(bytes(damaged))
        except AlulaError:
            continue
        assert isinstance(read, list) or (read.dtype == np.float32 and read.ndim == 2)
