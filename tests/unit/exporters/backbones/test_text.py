from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from alula.encoders import load_encoder
from alula.errors import AlulaError, UsageError
from alula_exporters.backbones.text import load_text_backbone, open_checkpoint, text_backbone
from alula_exporters.data import make_training_data
from alula_exporters.extras import needs_extra
from alula_exporters.flops import FlopsConfig, export_flops, train_flops
from tests.tiny_text_models import MAX_TOKENS, TEXTS


@pytest.fixture(scope="module")
def backbone(text_models):
    return load_text_backbone(text_models / "dense")


def test_the_module_embeds_as_the_model_does(backbone, text_models):
    model = open_checkpoint(text_models / "dense", "SentenceTransformer")
    expected = model.encode_document(TEXTS)
    tokens = backbone.collate(np.array(TEXTS, dtype=object))
    assert tokens[0].shape[1] == MAX_TOKENS
    found = backbone(*tokens)
    assert found.requires_grad  # so that a trainer can go through it
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)


def test_limits_and_prompts_are_the_models(backbone):
    assert backbone.contract == {
        "input": "text",
        "max_tokens": MAX_TOKENS,
        "row_prompt": "the ",
        "query_prompt": "a query ",
    }
    assert json.loads(backbone.tokenizer)["padding"]["pad_token"] == "[PAD]"


def test_texts_train_a_sparse_encoder_end_to_end(takes_long, text_models, tmp_path):
    backbone = load_text_backbone(text_models / "dense")
    words = np.array([("kite", "wing", "bird"), ("house", "stone", "river")])
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=400)
    texts = np.array([f"{w} of {rng.integers(99)} {w}" for w in words[labels, rng.integers(3, size=400)]], dtype=object)
    data = make_training_data(texts, labels)
    config = FlopsConfig(dim=64, nnz=4, flops=3.0, steps=10, anchors=16, batch=16, loss="contrastive")
    info = export_flops(train_flops(data, config, backbone=backbone), tmp_path / "e.onnx")
    assert (info.input, info.max_tokens) == ("text", MAX_TOKENS)
    encoder = load_encoder(tmp_path / "e.onnx")
    rows = encoder.encode_rows(encoder.embed(list(data.train)))
    queries = encoder.encode_queries(encoder.embed(list(data.held_out)))
    found = data.labels[(queries @ rows.T).toarray().argmax(1)]
    assert (found == data.held_out_labels).mean() > 0.95


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="There is no folder"):
        load_text_backbone(tmp_path / "no")


def test_a_folder_of_something_else(text_models):
    with pytest.raises(UsageError, match=r"it has no modules\.json"):
        load_text_backbone(text_models / "bert")


def test_a_model_of_another_class(text_models):
    with pytest.raises(UsageError, match="of the class SparseEncoder, and a SentenceTransformer is needed"):
        load_text_backbone(text_models / "csr")


def test_a_folder_that_is_broken(tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "config_sentence_transformers.json").write_text("[1]")
    with pytest.raises(UsageError, match="is not a JSON object"):
        load_text_backbone(tmp_path)
    (tmp_path / "config_sentence_transformers.json").unlink()
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(UsageError, match="cannot open the model in") as caught:
        load_text_backbone(tmp_path)
    assert "\n" not in str(caught.value)


def test_without_sentence_transformers(text_models, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(AlulaError, match=r"needs the package .* install it with: pip install 'alula\[sentence-tr"):
        load_text_backbone(text_models / "dense")


def test_a_fault_of_our_own_is_not_called_a_missing_package():
    with pytest.raises(ModuleNotFoundError), needs_extra("It", "train"):
        import alula_exporters.nothing  # noqa: F401


def saved(modules, folder, **arguments):
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(modules=modules, **arguments).save_pretrained(str(folder))
    return folder


def test_models_that_one_graph_cannot_hold(text_models, tmp_path):
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sentence_transformer.modules import BoW, Pooling

    transformer = Transformer(str(text_models / "bert"))
    router = Router.for_query_document([transformer, Pooling(32)], [transformer, Pooling(32)])
    with pytest.raises(UsageError, match="one way for queries and another for rows"):
        load_text_backbone(saved([router], tmp_path / "router"))
    with pytest.raises(UsageError, match="begins with BoW"):
        load_text_backbone(saved([BoW(["kite", "wing"])], tmp_path / "bow"))
    with pytest.raises(UsageError, match="leaves its prompt out of the pooling"):
        load_text_backbone(saved([transformer, Pooling(32, include_prompt=False)], tmp_path / "prompt"))


def test_a_tokenizer_that_is_only_python(text_models):
    from transformers import CanineTokenizer

    model = open_checkpoint(text_models / "dense", "SentenceTransformer")
    model[0].processor = CanineTokenizer()
    with pytest.raises(UsageError, match=r"CanineTokenizer\) has no tokenizer\.json"):
        text_backbone(model, list(model.children()))
