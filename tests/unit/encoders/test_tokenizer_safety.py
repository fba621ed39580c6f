"""Tokenizers of strangers: parts that could stop or fill a process are refused, those of real models are not."""

from __future__ import annotations

import base64
import json
import struct

import pytest

from alula.encoders import load_encoder, write_info
from alula.encoders.preprocessing import Tokenizer
from alula.encoders.tokenizer_safety import KNOWN, check_tokenizer, is_quick
from alula.errors import EncoderError
from tests.tiny_encoders import TinyText, save, write_flops


def with_parts(**parts):
    return json.dumps({**json.loads(TinyText().tokenizer()), **parts})


def replacing(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


def chain(*parts):
    return {"type": "Sequence", "normalizers": list(parts)}


def charsmap(text):
    """A map of characters with an empty trie and one text."""
    blob = struct.pack("<I", 4) + b"\0" * 4 + text.encode() + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(blob).decode()}


DOUBLE = replacing({"String": "a"}, "aa")
TEMPLATE = {"Sequence": {"id": "A", "type_id": 0}}
MODEL = {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}
DEEP = '{"normalizer": ' + '{"type": "Sequence", "normalizers": [' * 20_000

HOSTILE = {
    "a chain that doubles": (with_parts(normalizer=chain(*[DOUBLE] * 30)), r"1\.07e\+09 times as long"),
    "a nested chain": (
        with_parts(normalizer=chain(chain(*[DOUBLE] * 6), chain(*[DOUBLE] * 6))),
        "4.1e.03 times as long",
    ),
    "a long content": (with_parts(normalizer=replacing({"String": "a"}, "b" * 5000)), "inserts a text of more than 64"),
    "an expression that matches nothing": (
        with_parts(normalizer=chain(*[replacing({"Regex": "x?"}, "aaaa")] * 6)),
        "1.56e.04 times as long",
    ),
    "an empty pattern": (with_parts(normalizer=replacing({"String": ""}, "b")), "replaces an empty text"),
    "a long map": (with_parts(normalizer=charsmap("b" * 5000)), "inserts a text of more than 64"),
    "many parts": (with_parts(normalizer=chain(*[{"type": "NFC"}] * 33)), "more than 32 parts of the kind normalizer"),
    "an unknown part": (with_parts(pre_tokenizer={"type": "Python"}), "a pre_tokenizer 'Python', which is not allowed"),
    "a part without a type": (with_parts(normalizer={}), "a normalizer None, which is not allowed"),
    "an expression that tries all ways": (
        with_parts(normalizer=replacing({"Regex": "(a+)+b"}, "")),
        r"regular expression '\(a\+\)\+b', which could take very long",
    ),
    "an expression in a pre-tokenizer": (
        with_parts(
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [{"type": "Split", "pattern": {"Regex": ".*.*x"}, "behavior": "Isolated"}],
            }
        ),
        "which could take very long",
    ),
    "an expression in a decoder": (with_parts(decoder=replacing({"Regex": "(a|aa)+$"}, "")), "could take very long"),
    "a template that repeats the text": (
        with_parts(post_processor={"type": "TemplateProcessing", "single": [TEMPLATE] * 2, "special_tokens": {}}),
        "repeats the text",
    ),
    "a special token of many ids": (
        with_parts(
            post_processor={"single": [], "special_tokens": {"x": {"ids": [0] * 17}}, "type": "TemplateProcessing"}
        ),
        "a special token of more than 16 ids",
    ),
    "a long word": (with_parts(model={**MODEL, "vocab": {"a" * 1025: 0}}), "a word of more than 1024 characters"),
    "a long scored word": (
        with_parts(model={"type": "Unigram", "vocab": [["a" * 1025, 0.5]]}),
        "a word of more than 1024 characters",
    ),
    "a long added word": (with_parts(added_tokens=[{"content": "a" * 1025}]), "a word of more than 1024 characters"),
    "long words to cut": (
        with_parts(model={**MODEL, "type": "WordPiece", "max_input_chars_per_word": 10**9}),
        "cuts words of up to 1000000000",
    ),
    "a key twice": (with_parts()[:-1] + ', "normalizer": null}', "a key is there twice"),
    "deep nesting": (DEEP, "cannot be read"),
    "a deep chain": (DEEP + "]}" * 20_000 + "}", "cannot be read"),
    "a list": ("[]", "is not an object"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tokenizer_is_refused(name):
    text, says = HOSTILE[name]
    with pytest.raises(EncoderError, match=says):
        check_tokenizer(text)


def test_an_encoder_file_with_one_is_refused(tmp_path):
    import onnx

    text = write_flops(tmp_path / "e.onnx", backbone=TinyText())
    model = onnx.load(text.path)
    write_info(model, text.info, tokenizer=HOSTILE["a chain that doubles"][0])
    save(model, text.path)
    with pytest.raises(EncoderError, match=r"Cannot use the encoder .*e\.onnx: its tokenizer can make a text"):
        load_encoder(text.path)


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "BertNormalizer", "lowercase": True}, "pre_tokenizer": {"type": "BertPreTokenizer"}},
        {"normalizer": chain({"type": "NFKC"}, charsmap("a" * 18), replacing({"Regex": " {2,}"}, "\u2581"))},
        {"normalizer": chain({"type": "Prepend", "prepend": "\u2581"}, replacing({"String": " "}, "\u2581"))},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": sorted(KNOWN)[0]}, "behavior": "Isolated"}},
        {"model": {"type": "WordPiece", "vocab": {"[UNK]": 0}, "max_input_chars_per_word": 100}},
        {"decoder": {"type": "Sequence", "decoders": [replacing({"String": "\u2581"}, " "), {"type": "Fuse"}]}},
    ],
)
def test_parts_of_real_tokenizers_are_allowed(parts):
    check_tokenizer(with_parts(**parts))


@pytest.mark.parametrize(
    "expression", [" {2,}", r"\s+", r"\p{Nd}", "[0-9]", r"\d{1,3}", "``|''", "[^a-z]+|x?y", r"\r?\n"]
)
def test_expressions_that_read_a_text_once(expression):
    assert is_quick(expression)


@pytest.mark.parametrize(
    "expression",
    [
        r"a+b",
        r"a*a*",
        "(a)+",
        r"(?=a)b",
        r"(a)\1",
        r"\k<x>",
        "a{1,99}b",
        "[a-z&&[^b]]+",
        "a{2,}{2,}",
        "[[a]b]",
        "a++",
        7,
    ],
)
def test_expressions_that_may_not(expression):
    assert not is_quick(expression)


def test_known_expressions_are_read_by_the_package():
    tokenizers = pytest.importorskip("tokenizers")
    for expression in KNOWN:
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")
        words = [word for word, _ in split.pre_tokenize_str("It's  a test of 1234 words!\n")]
        assert "".join(words) == "It's  a test of 1234 words!\n"
        assert len(words) > 8


@pytest.mark.parametrize(("texts", "characters"), [(3, 1 << 20), (4096, 12)])
def test_texts_are_tokenized_in_pieces(monkeypatch, texts, characters):
    given = ["the cat", "a dog sees the red bird", "", "blue", "the", "cat cat", "dog", "the bird"]
    tokenizer = Tokenizer(TinyText().tokenizer(), 6, encoder="e.onnx")
    found = {}
    for limits in ((4096, 1 << 20), (texts, characters)):
        monkeypatch.setattr("alula.encoders.preprocessing.PIECE_TEXTS", limits[0])
        monkeypatch.setattr("alula.encoders.preprocessing.PIECE_CHARACTERS", limits[1])
        rows = {}
        for places, feed in tokenizer.feeds(given, 8):
            assert len(places) <= limits[0]
            for place, ids, mask in zip(places, feed["input_ids"], feed["attention_mask"], strict=True):
                rows[int(place)] = ids[mask == 1].tolist()
        found[limits] = rows
    first, second = found.values()
    assert first == second
    assert sorted(first) == list(range(len(given)))
