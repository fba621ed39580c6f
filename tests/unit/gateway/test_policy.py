"""Reading a gateway's policy, and which rule is about what."""

from __future__ import annotations

import pytest

from alula.errors import UsageError
from alula.gateway.policy import Policy, Rule, read_policy
from tests.tiny_encoders import write_drq

WHOLE = """
[[rules]]
index_type = "drq"
encoder = "words"
database = "default"
collection = "docs_*"
field = "vec?or"
dim = 8
metric = "cosine"
instead_of = ["hnsw", "AUTOINDEX"]
keep_vectors = false
[rules.options]
layout = "hamming"

[[rules]]
index_type = "FLOPS_SPARSE"
encoder = "sparse"
instead_of = "IVF_FLAT"
"""


@pytest.fixture
def read(tmp_path):
    def call(text):
        path = tmp_path / "policy.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_policy(path)

    return call


def test_a_whole_policy(read):
    first, second = read(WHOLE).rules
    assert (first.index_type, first.encoder, first.dim, first.metric) == ("DRQ", "words", 8, "COSINE")
    assert (first.instead_of, first.keep_vectors) == (["HNSW", "AUTOINDEX"], False)
    assert first.options["layout"] == "hamming"
    assert second.instead_of == ["IVF_FLAT"]
    assert second.keep_vectors


def test_which_fields_a_rule_names(read):
    rule = read(WHOLE).rules[0]
    assert rule.names("", "docs_1", "vector", "HNSW")
    assert rule.names("default", "docs_", "vector", "")
    assert rule.names("default", "docs_", "vector", "AutoIndex")
    assert not rule.names("other", "docs_1", "vector", "HNSW")
    assert not rule.names("", "Docs_1", "vector", "HNSW")
    assert not rule.names("", "docs_1", "vectors", "HNSW")
    assert not rule.names("", "docs_1", "vector", "IVF_FLAT")
    policy = Policy([rule])
    assert policy.covers("", "docs_1", "vector", "HNSW", "DRQ")
    assert not policy.covers("", "docs_1", "vector", "HNSW", "FLOPS_SPARSE")


@pytest.mark.parametrize(
    ("rule", "dim", "metric", "fits"),
    [
        (Rule("DRQ", "e"), 8, None, True),
        (Rule("DRQ", "e"), 8, "COSINE", True),
        (Rule("DRQ", "e"), 8, "L2", False),
        (Rule("DRQ", "e"), 16, None, False),
        (Rule("DRQ", "e", dim=8, metric="COSINE"), 8, None, True),
        (Rule("DRQ", "e", dim=16), 8, None, False),
        (Rule("DRQ", "e", metric="L2"), 8, None, False),
    ],
)
def test_which_vectors_a_rule_takes(tmp_path, rule, dim, metric, fits):
    from alula.encoders import load_encoder

    encoder = load_encoder(write_drq(tmp_path / "e.onnx", metric="COSINE").path)
    assert rule.fits(encoder, dim, metric) is fits


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rules = 3", r"must contain tables \[\[rules\]\]"),
        ("[[rules]]\nindex_type='DRQ'\nencoder='e'\n[other]\n", "nothing else"),
        ("[[rule]]\nindex_type='DRQ'\nencoder='e'\n", "nothing else"),
        ("rules = [", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        ("[[rules]]\nencoder='e'\n", "Rule 1 of the policy .* lacks index_type"),
        ("[[rules]]\nindex_type='DRQ'\n", "lacks encoder"),
        ("[[rules]]\nindex_type='DRQ'\nencoder='e'\nname='x'\n", "has no key 'name'; its keys are index_type"),
        ("[[rules]]\nindex_type='ANNOY'\nencoder='e'\n", "There is no index type 'ANNOY'"),
        ("[[rules]]\nindex_type='DRQ'\nencoder='e'\ndim='8'\n", "wrong value for dim: '8'"),
        ("[[rules]]\nindex_type='DRQ'\nencoder='e'\ndim=true\n", "wrong value for dim: True"),
        ("[[rules]]\nindex_type='DRQ'\nencoder='e'\ninstead_of=[]\n", "wrong value for instead_of"),
        ("[[rules]]\nindex_type='DRQ'\nencoder='e'\nvector_type='HALF'\n", "FLOAT_VECTOR or FLOAT16_VECTOR"),
        ("[[rules]]\nindex_type='DRQ'\nencoder='e'\ninstead_of=[1]\n", "wrong value for instead_of"),
        ("[[rules]]\nindex_type='DRQ'\nencoder='e'\noptions={layout='round'}\n", "layout"),
        ("[[rules]]\nindex_type='DRQ'\nencoder='e'\noptions={lay='round'}\n", "no option lay"),
    ],
)
def test_wrong_policies_are_a_sentence(read, text, words):
    with pytest.raises(UsageError, match=words):
        read(text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_policy(tmp_path / "none.toml")
