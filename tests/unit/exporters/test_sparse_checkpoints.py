from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

import alula
from alula.encoders import load_encoder
from alula.errors import EncoderError, UsageError
from alula_exporters.backbones.text import open_checkpoint
from alula_exporters.cli_export import export
from alula_exporters.sparse_checkpoints import _check_static, _parity, _Pooling, _weight_error, export_checkpoint
from tests.tiny_text_models import MAX_TOKENS, TEXTS

NNZ = {"splade": 20, "csr": 8, "inference-free": 20}


@pytest.fixture(scope="module", params=["splade", "csr", "inference-free"])
def exported(request, text_models, tmp_path_factory):
    """Name, model, encoder and what the command said."""
    name = request.param
    out = tmp_path_factory.mktemp("exported") / f"{name}.onnx"
    options = ["--max-nnz", "20"]  # fewer than SPLADE's rows have, more than CSR's k
    result = CliRunner().invoke(
        export, ["sentence-transformers", str(text_models / name), "--out", str(out), *options], catch_exceptions=False
    )
    return name, open_checkpoint(text_models / name, "SparseEncoder"), load_encoder(out), result.output


@pytest.mark.parametrize("queries", [False, True])
def test_texts_become_the_rows_that_sentence_transformers_makes(exported, queries):
    name, model, encoder, _ = exported
    encode = model.encode_query if queries else model.encode_document
    expected = encode(TEXTS, max_active_dims=NNZ[name]).to_dense().numpy()
    if name == "csr":  # cosine: the inner product of unit rows
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    rows = encoder.encode_rows(encoder.embed(TEXTS, queries=queries))
    table = queries and name == "inference-free"  # a query has as many weights as distinct tokens
    assert np.diff(rows.indptr).max() == ((expected > 0).sum(axis=1).max() if table else NNZ[name])
    assert len(np.unique(expected > 0, axis=0)) > 4  # so that it matters which text is which
    np.testing.assert_allclose(rows.toarray(), expected, atol=1e-5)


def test_scores_are_those_of_the_model(exported):
    name, model, encoder, _ = exported
    limit = {"max_active_dims": NNZ[name]}
    expected = model.similarity(model.encode_query(TEXTS, **limit), model.encode_document(TEXTS, **limit))
    queries, rows = (encoder.encode_rows(encoder.embed(TEXTS, queries=queries)) for queries in (True, False))
    np.testing.assert_allclose((queries @ rows.T).toarray(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_the_file_says_what_it_is(exported):
    name, _, encoder, output = exported
    info = encoder.info
    assert (info.kind, info.input, info.max_tokens, info.max_nnz) == ("flops", "text", MAX_TOKENS, NNZ[name])
    assert info.metric == {"csr": "COSINE"}.get(name, "IP")
    assert info.query_prompt == {"splade": "query: "}.get(name, "")
    assert info.training["modules"].endswith({"csr": "SparseAutoEncoder"}.get(name, "SpladePooling"))
    assert (info.query_max_tokens, info.format_version) == {"inference-free": (MAX_TOKENS, 3)}.get(name, (0, 2))
    assert {"sentence-transformers", "transformers"} <= info.versions.keys()
    assert max(info.parity["max_row_weight_error"], info.parity["max_query_weight_error"]) < 1e-5
    assert f"metric {info.metric}" in output
    assert f"Next: alula inspect {encoder.path}" in output
    assert ("a table of token weights" in output) == (name == "inference-free")
    assert len(output.splitlines()) == 6 + (
        name == "inference-free"
    )  # nothing of what the packages below say to each other


def test_one_file_without_a_trace_of_where_it_was_made(exported, text_models):
    path = exported[2].path
    assert list(path.parent.iterdir()) == [path]
    assert str(text_models).encode() not in path.read_bytes()
    assert {entry.domain for entry in onnx.load(path).opset_import} == {""}


def test_another_model_is_noticed(exported):
    name, model, encoder, _ = exported
    last = model[-1] if name != "inference-free" else model[0].sub_modules["document"][-1]
    changed = {"csr": ("normalize", False)}.get(name, ("pooling_strategy", "sum"))
    before = getattr(last, changed[0])
    setattr(last, *changed)
    try:
        with pytest.raises(EncoderError, match="does not compute what sentence-transformers does"):
            _parity(model, encoder, TEXTS)
    finally:
        setattr(last, changed[0], before)


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_every_pooling_of_splade(strategy, activation):
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    pooling = SpladePooling(strategy, activation).eval()
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    logits = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0)) * 3
    expected = pooling({"token_embeddings": logits.clone(), "attention_mask": mask})["sentence_embedding"]
    found = _Pooling(pooling)({"token_embeddings": logits, "attention_mask": mask})["sentence_embedding"]
    torch.testing.assert_close(found, expected)


def test_a_tie_for_the_last_place_is_no_difference_and_a_lost_weight_is():
    expected = np.array([[3, 1, 0.9999999, 0]], np.float32)
    tie = np.array([[3, 0, 0.9999999, 1]], np.float32)
    full = np.array([[3, 1, 0, 0]], np.float32)
    assert _weight_error(tie[:, [0, 2, 1, 3]] * 0 + full, full, 2) == 0
    swapped = np.array([[3, 0, 1, 0]], np.float32)
    assert _weight_error(swapped, full, 2) == 0
    assert _weight_error(swapped, full, 3) == pytest.approx(1 / 3)  # the row has room for both
    assert _weight_error(np.array([[0, 1, 3, 0]], np.float32), full, 2) == pytest.approx(2 / 3)
    assert _weight_error(tie, expected, 4) == pytest.approx(1 / 3)


def test_refusals_before_anything_is_computed(text_models, tmp_path):
    out = tmp_path / "e.onnx"
    with pytest.raises(UsageError, match="of the class SentenceTransformer, and a SparseEncoder is needed"):
        export_checkpoint(text_models / "dense", out)
    out.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        export_checkpoint(text_models / "splade", out)
    assert out.read_text() == "mine"


def saved(modules, folder, **arguments):
    from sentence_transformers import SparseEncoder

    SparseEncoder(modules=modules, **arguments).save_pretrained(str(folder))
    return folder


def test_models_that_no_inverted_index_holds(text_models, tmp_path):
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
    from transformers import BertTokenizerFast

    transformer = Transformer(str(text_models / "bert"), transformer_task="fill-mask")
    static = SparseStaticEmbedding(transformer.tokenizer)
    model = [transformer, SpladePooling()]
    router = Router.for_query_document(model, model)
    other = BertTokenizerFast(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "kite": 5})
    strange = Router.for_query_document([SparseStaticEmbedding(other)], model)
    out = tmp_path / "e.onnx"
    for modules, arguments, words in (
        ([router], {}, "one way for queries and another for rows"),
        ([strange], {}, "other tokens than rows"),
        ([static], {}, "begins with SparseStaticEmbedding"),
        (model, {"similarity_fn_name": "euclidean"}, "compares by 'euclidean'"),
        ([*model, Normalize()], {}, "ends with Normalize"),
    ):
        folder = saved(modules, tmp_path / words.split()[-1], **arguments)
        with pytest.raises(UsageError, match=words):
            export_checkpoint(folder, out)
    assert not out.exists()
    with pytest.raises(UsageError, match="rows have 1,000 dimensions"):
        _check_static(static, transformer.tokenizer, 1000)


def test_a_search_in_milvus_finds_what_the_model_finds(exported, lite, collection_name):
    name, model, encoder, _ = exported
    collection = alula.Collection.create(
        lite, collection_name, encoder=encoder.path, index_type="FLOPS_SPARSE", keep_vectors=False
    )
    collection.insert(TEXTS, {"id": list(range(len(TEXTS)))})
    limit = {"max_active_dims": NNZ[name]}
    queries = ["a kite of fire", "light on the water"]
    expected = model.similarity(model.encode_query(queries, **limit), model.encode_document(TEXTS, **limit))
    for scores, hits in zip(expected, collection.search(queries, limit=3), strict=True):
        best = scores.topk(3)
        assert [hit.id for hit in hits] == best.indices.tolist()
        np.testing.assert_allclose([hit.score for hit in hits], best.values, rtol=1e-4)
