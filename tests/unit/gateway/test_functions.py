"""Declared functions as pure rewriting: what clients may declare, what Milvus gets, what clients see again."""

import itertools

import numpy as np
import pytest
from pymilvus import CollectionSchema, DataType, FieldSchema, Function, FunctionType
from pymilvus.client.abstract import CollectionSchema as Described
from pymilvus.client.prepare import Prepare
from pymilvus.client.utils import sparse_parse_single_row
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

import alula.encoders.drq_encoder
import alula.encoders.encoder
from alula.encoders import load_encoder
from alula.errors import DataError, EncoderError, UsageError
from alula.gateway import function_values, functions
from alula.gateway.upstream import CallEndedError
from alula.milvus.wire import placeholders
from tests.tiny_encoders import TinyText, random_vectors, write_drq, write_flops

TEXTS = ["the red bird", "", "dog sees cat", "blue"]
INPUTS = {
    "text": FieldSchema("text", DataType.VARCHAR, max_length=500),
    "vector": FieldSchema("vector", DataType.FLOAT_VECTOR, dim=8),
}
OUTPUTS = {
    "sparse": FieldSchema("sparse", DataType.SPARSE_FLOAT_VECTOR, description="of words"),
    "binary": FieldSchema("binary", DataType.BINARY_VECTOR, dim=32),
}
ENCODERS = {
    ("text", "sparse"): "words",
    ("text", "binary"): "bits",
    ("vector", "sparse"): "flops",
    ("vector", "binary"): "drq",
}
PAIRS = list(itertools.product(INPUTS, OUTPUTS))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """What the encoders compute, by name."""
    folder = tmp_path_factory.mktemp("encoders")
    return {
        "words": write_flops(folder / "words.onnx", backbone=TinyText(), metric="IP"),
        "bits": write_drq(folder / "bits.onnx", backbone=TinyText()),
        "flops": write_flops(folder / "flops.onnx"),
        "drq": write_drq(folder / "drq.onnx"),
        "long": write_drq(folder / "long.onnx", sign_bits=64),
        "wide": write_flops(folder / "wide.onnx", input_dim=9),
    }


@pytest.fixture(scope="module")
def encoder_of(tiny):
    loaded = {name: load_encoder(encoder.path) for name, encoder in tiny.items()}
    loaded |= {encoder.sha256: encoder for encoder in loaded.values()}

    def find(name):
        if name not in loaded:
            raise EncoderError(f"There is no encoder {name!r}.")
        return loaded[name]

    return find


def function(source, target, kind=FunctionType.MINHASH, name="f", **params):
    return Function(name, kind, source, target, "computed", {"provider": "alula", **params})


def declared(*made, fields=None):
    """A schema as a client sends it, through all checks that pymilvus makes."""
    fields = fields or [*INPUTS.values(), *OUTPUTS.values()]
    schema = CollectionSchema([FieldSchema("id", DataType.INT64, is_primary=True), *fields], functions=list(made))
    return Prepare.get_schema_from_collection_schema("c", schema)


def stored_schema(encoder_of, *pairs):
    """What Milvus holds after functions were declared."""
    schema = declared(*(function(*pair, name=f"to {pair[1]}", encoder=ENCODERS[pair]) for pair in pairs))
    functions.declare(schema, encoder_of)
    return schema


def rows(**columns):
    """An insert request of columns."""
    request = milvus_pb2.InsertRequest(num_rows=len(TEXTS))
    for name, values in columns.items():
        data = request.fields_data.add(field_name=name)
        if name == "text":
            data.type = DataType.VARCHAR
            data.scalars.string_data.data.extend(values)
        else:
            data.type = DataType.FLOAT_VECTOR
            data.vectors.dim = values.shape[1]
            data.vectors.float_vector.data.extend(values.ravel().tolist())
    return request


def values_of(source):
    return TEXTS if source == "text" else random_vectors(len(TEXTS))


def expected_rows(tiny, source, target, *, queries=False):
    """By the encoders' formulas: dense weights, or packed bits."""
    encoder, values = tiny[ENCODERS[source, target]], values_of(source)
    vectors = encoder.backbone.embed(values, queries=queries) if source == "text" else values
    if target == "sparse":
        return encoder.dense(vectors)
    return encoder.query_signs(vectors) if queries else encoder.row_signs(vectors)


def dense(contents, dim=32):
    out = np.zeros((len(contents), dim))
    for row, content in zip(out, contents, strict=True):
        for at, weight in sparse_parse_single_row(content).items():
            row[at] = weight
    return out


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("kind", [FunctionType.MINHASH, FunctionType.RERANK])
def test_what_milvus_gets_and_what_clients_see_again(encoder_of, source, target, kind):
    schema = declared(function(source, target, kind, encoder=ENCODERS[source, target]))
    before = schema_pb2.CollectionSchema.FromString(schema.SerializeToString())
    assert functions.are_declared(schema)
    functions.declare(schema, encoder_of)
    assert not schema.functions
    assert not any(field.is_function_output for field in schema.fields)
    assert [field.name for field in schema.fields] == [field.name for field in before.fields]

    (found,) = functions.functions_of(schema)
    assert (found.input, found.output) == (source, target)
    assert found.encoder == encoder_of(ENCODERS[source, target]).sha256

    functions.show(schema)
    before.functions[0].params[1].value = found.encoder
    assert schema == before
    seen = Described(milvus_pb2.DescribeCollectionResponse(schema=schema)).dict()
    assert [field["name"] for field in seen["fields"] if field.get("is_function_output")] == [target]
    assert seen["functions"][0]["params"] == {"provider": "alula", "encoder": found.encoder}

    functions.declare(schema, encoder_of)  # as from a client that makes such a collection again
    assert functions.functions_of(schema) == [found]


def test_clients_let_bm25_declare_texts_to_sparse_vectors(encoder_of):
    schema = declared(function("text", "sparse", FunctionType.BM25, encoder="words"))
    functions.declare(schema, encoder_of)
    assert functions.functions_of(schema)[0].type == FunctionType.BM25


def test_other_functions_are_left_to_milvus(encoder_of):
    schema = declared(Function("bm25", FunctionType.BM25, "text", "sparse"))
    before = schema.SerializeToString()
    assert not functions.are_declared(schema)
    functions.declare(schema, encoder_of)
    assert schema.SerializeToString() == before


def test_descriptions_of_others_are_no_functions():
    texts = ['[alula {"function": "f"}]', '[alula {"function": "f", "kind": "x"}]', "[alula 5]", "text"]
    schema = schema_pb2.CollectionSchema(fields=[{"name": str(i), "description": text} for i, text in enumerate(texts)])
    before = schema.SerializeToString()
    functions.show(schema)
    assert schema.SerializeToString() == before
    assert functions.functions_of(schema) == []


NULLABLE = FieldSchema("text", DataType.VARCHAR, max_length=500, nullable=True)


@pytest.mark.parametrize(
    ("made", "fields", "error", "says"),
    [
        ([function("text", "sparse")], None, UsageError, "names no encoder"),
        ([function("text", "sparse", encoder="words", model="x")], None, UsageError, "no parameter model"),
        ([function("text", "sparse", encoder="unheard")], None, EncoderError, "no encoder 'unheard'"),
        ([function(["text", "vector"], "sparse", encoder="words")], None, UsageError, "exactly one input field"),
        ([function("text", ["sparse", "binary"], encoder="words")], None, UsageError, "one output field"),
        ([function("text", "sparse", encoder="bits")], None, EncoderError, "'drq' gives BINARY_VECTOR"),
        ([function("text", "binary", encoder="words")], None, EncoderError, "'flops' gives SPARSE_FLOAT_VECTOR"),
        ([function("text", "sparse", encoder="flops")], None, EncoderError, "name an encoder of text"),
        ([function("vector", "sparse", encoder="wide")], None, EncoderError, "takes 9"),
        ([function("vector", "binary", encoder="long")], None, EncoderError, "gives 64"),
        ([function("id", "sparse", encoder="words")], None, UsageError, "which is INT64"),
        ([function("text", "vector", encoder="words")], None, EncoderError, "which is FLOAT_VECTOR"),
        ([function("text", "sparse", encoder="words")], [NULLABLE, OUTPUTS["sparse"]], UsageError, "may be null"),
        (
            [function("text", "sparse", encoder="words"), function("vector", "sparse", encoder="flops", name="g")],
            None,
            UsageError,
            "output of two functions",
        ),
        ([function("text", "sparse", encoder="words", name="[alula x")], None, UsageError, "is reserved for"),
    ],
)
def test_refuses_what_it_cannot_compute(encoder_of, made, fields, error, says):
    schema = declared(*made, fields=fields)
    with pytest.raises(error) as raised:
        functions.declare(schema, encoder_of)
    assert says in str(raised.value)


def test_refuses_what_only_other_clients_can_send(encoder_of):
    schema = declared(function("text", "sparse", encoder="words"))
    schema.functions[0].output_field_names[0] = "missing"
    with pytest.raises(UsageError, match="'missing', which the schema does not have"):
        functions.declare(schema, encoder_of)
    schema = declared(function("text", "sparse", encoder="words"))
    schema.fields[3].data_type = 99
    with pytest.raises(EncoderError, match="unknown type \\(99\\)"):
        functions.declare(schema, encoder_of)
    schema = declared(function("vector", "sparse", encoder="flops"))
    del schema.fields[2].type_params[:]
    with pytest.raises(UsageError, match="The dimension of the field 'vector' is ''"):
        functions.declare(schema, encoder_of)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_rows_get_their_outputs(tiny, encoder_of, source, target):
    request = rows(**{source: values_of(source)})
    function_values.fill(request, functions.functions_of(stored_schema(encoder_of, (source, target))), encoder_of)
    assert [data.field_name for data in request.fields_data] == [source, target]
    filled = request.fields_data[1]
    expected = expected_rows(tiny, source, target)
    if target == "sparse":
        assert filled.type == DataType.SPARSE_FLOAT_VECTOR
        np.testing.assert_allclose(dense(filled.vectors.sparse_float_vector.contents), expected, atol=1e-6)
    else:
        assert filled.type == DataType.BINARY_VECTOR
        assert filled.vectors.dim == 32
        assert filled.vectors.binary_vector == expected.tobytes()


def test_many_rows_are_encoded_in_parts(encoder_of, monkeypatch):
    held = functions.functions_of(stored_schema(encoder_of, ("vector", "sparse"), ("text", "binary")))
    whole, parts = rows(vector=random_vectors(4), text=TEXTS), rows(vector=random_vectors(4), text=TEXTS)
    function_values.fill(whole, held, encoder_of)
    monkeypatch.setattr(alula.encoders.encoder, "SLICE_ROWS", 3)
    function_values.fill(parts, held, encoder_of)
    assert parts == whole


def test_two_functions_may_read_one_field(tiny, encoder_of):
    held = functions.functions_of(stored_schema(encoder_of, ("text", "sparse"), ("text", "binary")))
    request = rows(text=TEXTS)
    function_values.fill(request, held, encoder_of)
    assert [data.field_name for data in request.fields_data] == ["text", "sparse", "binary"]


def test_refuses_rows_that_are_not_whole(encoder_of):
    held = functions.functions_of(stored_schema(encoder_of, ("vector", "sparse")))
    with pytest.raises(UsageError, match="lack 'vector'"):
        function_values.fill(rows(text=TEXTS), held, encoder_of)
    with pytest.raises(DataError, match="dimension 7"):
        function_values.fill(rows(vector=random_vectors(4, 7)), held, encoder_of)
    with pytest.raises(DataError, match="NaN"):
        function_values.fill(rows(vector=np.full((4, 8), np.nan)), held, encoder_of)
    given = rows(vector=random_vectors(4))
    given.fields_data.add(field_name="sparse", type=DataType.SPARSE_FLOAT_VECTOR)
    with pytest.raises(UsageError, match="leave it out"):
        function_values.fill(given, held, encoder_of)
    given = rows(text=TEXTS)
    given.fields_data[0].field_name = "vector"
    with pytest.raises(DataError, match="not an array of numbers"):
        function_values.fill(given, held, encoder_of)


def test_a_partial_upsert_without_the_input_leaves_the_output(encoder_of):
    held = functions.functions_of(stored_schema(encoder_of, ("text", "sparse")))
    request = milvus_pb2.UpsertRequest(partial_update=True)
    function_values.fill(request, held, encoder_of)
    assert not request.fields_data
    request.fields_data.extend(rows(text=TEXTS).fields_data)
    function_values.fill(request, held, encoder_of)
    assert [data.field_name for data in request.fields_data] == ["text", "sparse"]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_queries_become_native_ones(tiny, encoder_of, source, target, monkeypatch):
    monkeypatch.setattr(alula.encoders.encoder, "SLICE_ROWS", 3)
    (held,) = functions.functions_of(stored_schema(encoder_of, (source, target)))
    sent = Prepare._prepare_placeholder_str(list(values_of(source)))
    group = function_values.native_queries(sent, held, encoder_of)
    (placeholder,) = common_pb2.PlaceholderGroup.FromString(group).placeholders
    expected = expected_rows(tiny, source, target, queries=True)
    if target == "sparse":
        assert placeholder.type == common_pb2.PlaceholderType.SparseFloatVector
        np.testing.assert_allclose(dense(placeholder.values), expected, atol=1e-6)
    else:
        assert placeholder.type == common_pb2.PlaceholderType.BinaryVector
        assert list(placeholder.values) == [row.tobytes() for row in expected]
    assert function_values.native_queries(group, held, encoder_of) == group  # native ones stay as they are


def test_vectors_that_the_node_sdk_writes_as_texts(encoder_of):
    (held,) = functions.functions_of(stored_schema(encoder_of, ("vector", "sparse")))
    vectors = random_vectors(2)
    sent = Prepare._prepare_placeholder_str([",".join(map(str, row.tolist())) for row in vectors])
    assert function_values.native_queries(sent, held, encoder_of) == function_values.native_queries(
        placeholders.write(vectors), held, encoder_of
    )


@pytest.mark.parametrize(
    "texts", [["the red bird"], ["1,2", "1,2,3"], ["1,2"], ["[" * 100_000], [""], ["1,2,3,4,5,6,7,NaN"], ['{"a":1}']]
)
def test_refuses_texts_for_an_encoder_of_vectors(encoder_of, texts):
    (held,) = functions.functions_of(stored_schema(encoder_of, ("vector", "sparse")))
    with pytest.raises(DataError):
        function_values.native_queries(Prepare._prepare_placeholder_str(texts), held, encoder_of)


def test_a_text_function_takes_embeddings_as_queries(tiny, encoder_of):
    (held,) = functions.functions_of(stored_schema(encoder_of, ("text", "binary")))
    vectors = random_vectors(3)
    group = function_values.native_queries(placeholders.write(vectors), held, encoder_of)
    values = common_pb2.PlaceholderGroup.FromString(group).placeholders[0].values
    assert list(values) == [row.tobytes() for row in tiny["bits"].query_signs(vectors)]


def test_very_long_texts_are_refused(encoder_of):
    """A text takes some hundred bytes a character while it is tokenized."""
    held = functions.functions_of(stored_schema(encoder_of, ("text", "binary")))
    texts = ["the bird", "x" * ((1 << 20) + 1)]
    with pytest.raises(DataError, match="has 1,048,577 characters"):
        function_values.fill(rows(text=texts), held, encoder_of)
    with pytest.raises(DataError, match="has 1,048,577 characters"):
        function_values.native_queries(Prepare._prepare_placeholder_str(texts), held[0], encoder_of)


def test_pieces_of_texts_are_encoded_as_a_whole(encoder_of, monkeypatch):
    """And between them a call that is cancelled ends."""
    held = functions.functions_of(stored_schema(encoder_of, ("text", "binary")))
    whole, pieces, checks = rows(text=TEXTS), rows(text=TEXTS), []
    function_values.fill(whole, held, encoder_of)
    monkeypatch.setattr(function_values, "PIECE_ROWS", 1)
    function_values.fill(pieces, held, encoder_of, lambda: checks.append(1))
    assert pieces.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)
    assert len(checks) >= len(TEXTS)

    def gone():
        raise CallEndedError("gone")

    with pytest.raises(CallEndedError):
        function_values.fill(rows(text=TEXTS), held, encoder_of, gone)
