"""Encoders of images and of text: the embedding equals the backbone written in numpy; breaches are refused."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from alula.encoders import EncoderInfo, load_encoder, write_info
from alula.encoders import preprocessing as raw
from alula.errors import AlulaError, DataError, EncoderError
from tests.tiny_encoders import VOCABULARY, TinyImages, TinyText, save, write_drq, write_flops

TEXTS = ["the cat sees a dog", "", "bird", "red red red blue blue cat dog bird", "unheard-of words!"] * 9
TEXT = EncoderInfo("flops", "COSINE", 8, True, dim=32, max_nnz=4, input="text", max_tokens=6, row_prompt="row: ")
IMAGES = EncoderInfo("drq", "L2", 8, False, levels=4, sign_bits=32, input="images", image_shape=(4, 5, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("raw")


@pytest.fixture(scope="module")
def text(folder):
    return write_flops(folder / "text.onnx", backbone=TinyText())


@pytest.fixture(scope="module")
def images(folder):
    return write_drq(folder / "images.onnx", backbone=TinyImages())


@pytest.fixture
def text_model(text):
    return onnx.load(text.path)


# --- texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_flops, write_drq])
@pytest.mark.parametrize("queries", [False, True])
def test_texts_equal_numpy_with_their_prompt(tmp_path, write, queries):
    tiny = write(tmp_path / "e.onnx", backbone=TinyText())
    found = load_encoder(tiny.path, threads=1).embed(TEXTS, queries=queries)
    assert (found.dtype, found.shape) == (np.float32, (45, 8))
    np.testing.assert_allclose(found, tiny.backbone.embed(TEXTS, queries=queries), atol=1e-6)


def test_rows_and_queries_are_computed_from_the_embedding(text, images):
    encoder = load_encoder(text.path)
    vectors = encoder.embed(TEXTS)
    np.testing.assert_allclose(encoder.encode_rows(vectors).toarray(), text.dense(vectors), atol=1e-6)
    encoder = load_encoder(images.path)
    vectors = encoder.embed(images.backbone.random(20))
    np.testing.assert_array_equal(encoder.encode_rows(vectors).codes, images.codes(vectors))
    np.testing.assert_allclose(encoder.encode_queries(vectors).lut, images.lut(vectors), atol=1e-5)


@pytest.mark.parametrize("floats", [1, 8 * 6 * 3, 1 << 26])
def test_batches_of_any_size_give_the_same(text, monkeypatch, floats):
    monkeypatch.setattr(raw, "FLOATS", floats)
    done = []
    found = load_encoder(text.path).embed(TEXTS, progress=done.append)
    np.testing.assert_allclose(found, text.backbone.embed(TEXTS), atol=1e-6)
    assert done == sorted(done)
    assert done[-1] == len(TEXTS)


def test_one_text_and_none(text):
    encoder = load_encoder(text.path)
    np.testing.assert_allclose(encoder.embed("bird"), text.backbone.embed(["bird"]), atol=1e-6)
    assert encoder.embed([]).shape == (0, 8)
    np.testing.assert_allclose(encoder.embed(np.array(["cat", "dog"])), text.backbone.embed(["cat", "dog"]), atol=1e-6)


def test_feeds_are_padded_to_the_longest_and_truncated():
    tokenizer = raw.Tokenizer(TinyText().tokenizer(), 4, encoder="e")
    ((places, feed),) = tokenizer.feeds(["cat", "the cat sees a dog", ""], 8)
    inputs, mask = feed["input_ids"], feed["attention_mask"]
    assert (inputs.dtype, mask.dtype) == (np.int64, np.int64)
    found = {int(place): [VOCABULARY[i] for i in row] for place, row in zip(places, inputs, strict=True)}
    assert found == {
        0: ["[CLS]", "cat", "[PAD]", "[PAD]"],
        1: ["[CLS]", "the", "cat", "sees"],
        2: ["[CLS]", "[PAD]", "[PAD]", "[PAD]"],
    }
    np.testing.assert_array_equal(mask, inputs != 2)


@pytest.mark.parametrize(("padding", "expected"), [(None, 2), ({"pad_id": 5}, 5)])
def test_the_padding_token_is_the_tokenizers_own(padding, expected):
    data = json.loads(TinyText().tokenizer())
    data["padding"] = padding and {**data["padding"], **padding}
    ((_, feed),) = raw.Tokenizer(json.dumps(data), 4, encoder="e").feeds(["cat dog", ""], 8)
    assert sorted(feed["input_ids"][:, -1])[0] in (expected, VOCABULARY.index("dog"))
    assert expected in feed["input_ids"][:, -1]


def test_a_text_without_tokens_is_one_masked_token():
    data = json.loads(TinyText().tokenizer())
    data["post_processor"] = None
    ((_, feed),) = raw.Tokenizer(json.dumps(data), 4, encoder="e").feeds([""], 8)
    assert (feed["input_ids"].tolist(), feed["attention_mask"].tolist()) == ([[2]], [[0]])


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["a", None], "Row 1 of the texts is None, not a string"),
        (["a", 3], "Row 1 of the texts is 3, not a string"),
        ([["a"]], r"Row 0 of the texts is \['a'\]"),
        (["a", "half \ud83d"], "Row 1 of the texts is no Unicode text"),
        (None, "are not a list of strings"),
        (b"a", "are not a list of strings"),
        ({"a": 1}, "are not a list of strings"),
        (np.zeros((2, 8)), "are not a list of strings"),
    ],
)
def test_what_is_no_text(text, texts, says):
    with pytest.raises(DataError, match=says):
        load_encoder(text.path).embed(texts)


# --- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 300])
def test_images_equal_numpy(images, monkeypatch, rows):
    monkeypatch.setattr(raw, "IMAGES", 64)
    given = images.backbone.random(rows, seed=rows)
    np.testing.assert_allclose(load_encoder(images.path).embed(given), images.backbone.embed(given), atol=1e-5)


def test_one_image_and_none(images):
    encoder = load_encoder(images.path)
    given = images.backbone.random(1)
    np.testing.assert_array_equal(encoder.embed(given[0], queries=True), encoder.embed(given))
    np.testing.assert_allclose(encoder.embed(list(given)), images.backbone.embed(given), atol=1e-5)
    assert encoder.embed(given[:0]).shape == (0, 8)


def test_grey_images_may_leave_the_channel_out(tmp_path):
    tiny = write_drq(tmp_path / "grey.onnx", backbone=TinyImages(shape=(4, 5, 1)))
    given, encoder = tiny.backbone.random(7), load_encoder(tiny.path)
    expected = tiny.backbone.embed(given)
    np.testing.assert_allclose(encoder.embed(given[..., 0]), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.embed(given[0, ..., 0]), expected[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.zeros((2, 4, 5, 3)), "The images are float64, and .* takes pixels as uint8"),
        (np.zeros((2, 4, 5, 3), bool), "are bool"),
        (np.zeros((2, 5, 4, 3), np.uint8), r"have shape \(2, 5, 4, 3\), .* = \(4, 5, 3\)"),
        (np.zeros((2, 3, 4, 5), np.uint8), "have shape"),
        (np.zeros((4, 5), np.uint8), "have shape"),
        (np.zeros((1, 1, 4, 5, 3), np.uint8), "have shape"),
        (["a", "b"], "are <U1"),
        ([np.zeros((4, 5, 3), np.uint8), np.zeros((2, 5, 3), np.uint8)], "not an array of images of one shape"),
    ],
)
def test_what_is_no_image_for_it(images, given, says):
    with pytest.raises(DataError, match=says):
        load_encoder(images.path).embed(given)


def test_vectors_embed_as_they_are(tmp_path):
    encoder = load_encoder(write_drq(tmp_path / "e.onnx").path)
    vectors = np.ones((2, 8), np.float32)
    assert encoder.embed(vectors) is not None
    np.testing.assert_array_equal(encoder.embed(vectors), vectors)
    with pytest.raises(DataError, match="The queries have dimension 3"):
        encoder.embed(np.ones((2, 3)), queries=True)


# --- the contract ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("info", [TEXT, IMAGES], ids=["text", "images"])
def test_info_survives_json(info):
    assert EncoderInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize(
    ("info", "name", "value"),
    [
        (TEXT, "input", "audio"),
        (TEXT, "input", ["text"]),
        (TEXT, "input_dim", 1_000_001),
        (TEXT, "max_tokens", 0),
        (TEXT, "max_tokens", 6.0),
        (TEXT, "max_tokens", 2**21),
        (TEXT, "query_max_tokens", 6),
        (replace(TEXT, format_version=3), "query_max_tokens", 2**21),
        (replace(TEXT, format_version=3), "query_max_tokens", "6"),
        (TEXT, "image_shape", [4, 5, 3]),
        (TEXT, "row_prompt", None),
        (TEXT, "query_prompt", 3),
        (IMAGES, "image_shape", []),
        (IMAGES, "image_shape", [4, 5]),
        (IMAGES, "image_shape", [4, 5, 0]),
        (IMAGES, "image_shape", [4, 5, 3.0]),
        (IMAGES, "image_shape", "453"),
        (IMAGES, "image_shape", [2**20, 2**20, 3]),
        (IMAGES, "max_tokens", 5),
        (IMAGES, "row_prompt", "row: "),
        (IMAGES, "query_prompt", "row: "),
        (replace(IMAGES, input="vectors", image_shape=()), "input_dim", 32_769),
        (replace(IMAGES, input="vectors", image_shape=()), "max_tokens", 1),
        (replace(IMAGES, input="vectors", image_shape=(), format_version=3), "query_max_tokens", 1),
        (replace(IMAGES, input="vectors", image_shape=()), "image_shape", [4, 5, 3]),
    ],
)
def test_a_wrong_field_is_named(info, name, value):
    with pytest.raises(EncoderError, match=f"metadata is wrong: {name} is "):
        EncoderInfo.from_json(json.dumps({**asdict(info), name: value}))


def test_embeddings_may_be_longer_than_what_milvus_keeps():
    assert EncoderInfo.from_json(replace(TEXT, input_dim=250_002).to_json()).input_dim == 250_002


def test_a_text_encoder_without_its_embedding(text_model, refused):
    kept = [value for value in text_model.graph.output if value.name != "vectors"]
    del text_model.graph.output[:]
    text_model.graph.output.extend(kept)
    assert "takes text and lacks the output 'vectors', the embedding" in refused(text_model)


def test_queries_without_the_output_of_their_own(text, text_model, refused):
    write_info(text_model, replace(text.info, query_max_tokens=6, format_version=3))
    assert "takes text and lacks the output 'query_vectors', the embedding" in refused(text_model)


def test_a_text_encoder_without_a_tokenizer(text, text_model, refused):
    del text_model.metadata_props[:]
    write_info(text_model, text.info)
    assert "takes text and has no 'alula.tokenizer' metadata" in refused(text_model)


@pytest.mark.parametrize("tokenizer", ["", "{}", "[1, 2", '{"version": "1.0", "model": {"type": "BPE"}}'])
def test_a_tokenizer_that_is_none(text, text_model, refused, tokenizer):
    write_info(text_model, text.info, tokenizer=tokenizer)
    assert "its tokenizer cannot be read" in refused(text_model)


def test_a_tokenizer_that_panics(text, text_model, refused):
    data = json.loads(TinyText().tokenizer())
    data["post_processor"]["special_tokens"] = {}  # which its template speaks of: Rust panics at the first text
    write_info(text_model, text.info, tokenizer=json.dumps(data))
    assert "its tokenizer failed" in refused(text_model)


def test_more_special_tokens_than_a_text_may_have(text, text_model, refused):
    data = json.loads(TinyText().tokenizer())
    data["post_processor"]["single"][:0] = data["post_processor"]["single"][:1]
    write_info(text_model, replace(text.info, max_tokens=1), tokenizer=json.dumps(data))
    assert "it adds 2 special tokens, and max_tokens is 1" in refused(text_model)


def test_a_tokenizer_with_more_words_than_the_table(text, text_model, refused):
    data = json.loads(TinyText().tokenizer())
    data["model"]["vocab"] = {"[UNK]": 900, "[CLS]": 1}
    write_info(text_model, text.info, tokenizer=json.dumps(data))
    assert "failed while encoding" in refused(text_model)


def test_the_inputs_are_those_of_its_kind(text, images, text_model, refused):
    write_info(text_model, replace(images.info, kind="flops", dim=32, max_nnz=4, levels=0, sign_bits=0))
    assert "its inputs are ['attention_mask', 'input_ids'], not ['images']" in refused(text_model)


def test_an_output_computed_past_the_embedding(text_model, refused):
    (giver,) = (node for node in text_model.graph.node if "weights" in node.output)
    giver.output[0] = "was"
    extra = [helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT)]
    extra.append(helper.make_node("ReduceSum", ["ids"], ["sum"], keepdims=0))
    text_model.graph.node.extend([*extra, helper.make_node("Mul", ["was", extra[-1].output[0]], ["weights"])])
    said = refused(text_model)
    assert "its output weights is computed from input_ids past 'vectors'" in said
    assert "from the embedding only" in said


def test_nodes_that_leave_outputs_out_do_not_tie_the_graph_together(text, text_model, tmp_path):
    # an empty name stands for an optional input or output that is not there, and is no tensor
    nodes = text_model.graph.node
    (giver,) = (node for node in nodes if "weights" in node.output)
    giver.output[0] = "was"
    nodes.append(helper.make_node("Clip", ["was", "", ""], ["weights"]))
    embed = next(node for node in nodes if "input_ids" in node.input)
    embed_output = embed.output[0]
    embed.output[0] = "gathered"
    place = list(nodes).index(embed)
    nodes.insert(place + 1, helper.make_node("Dropout", ["gathered"], [embed_output, ""]))
    save(text_model, tmp_path / "e.onnx")
    np.testing.assert_allclose(load_encoder(tmp_path / "e.onnx").embed(TEXTS), text.backbone.embed(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"factor": np.nan}, "vectors holds values that are not finite"),
        ({"input_dim": 9}, r"vectors is float32 \(4, 8\), and float32 \(4, 9\) was expected"),
    ],
)
def test_an_embedding_that_breaks_the_contract(text, text_model, refused, change, says):
    if "factor" in change:
        (giver,) = (node for node in text_model.graph.node if "vectors" in node.output)
        giver.output[0] = "was"
        text_model.graph.initializer.append(helper.make_tensor("factor", TensorProto.FLOAT, [], [np.nan]))
        place = list(text_model.graph.node).index(giver)
        text_model.graph.node.insert(place + 1, helper.make_node("Mul", ["was", "factor"], ["vectors"]))
    else:
        write_info(text_model, replace(text.info, **change))
    assert re.search(says, refused(text_model))


def test_a_graph_of_a_fixed_length_is_refused(text_model, refused):
    for value in text_model.graph.input:
        value.type.tensor_type.shape.dim[1].dim_value = 6
    assert "failed while encoding" in refused(text_model)


def test_without_the_package_tokenizers(text, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(
        AlulaError, match=r"needs the package 'tokenizers'; install it with: pip install 'alula\[text\]'"
    ):
        load_encoder(text.path)
