"""SPLADE models that give a text the weights of its own words, as trained ones do."""

from __future__ import annotations

import pytest

from tests.tiny_text_models import tokenizer


@pytest.fixture(scope="session")
def word_models(tmp_path_factory):
    """A folder with ``splade`` and ``inference-free``."""
    folder = tmp_path_factory.mktemp("word_models")
    save_word_models(folder)
    return folder


def save_word_models(folder):
    """The rows of the second one have more tokens, since its queries have few for them to meet."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    splade = [network(folder / "bert", bias=-3.0), SpladePooling("max")]
    SparseEncoder(modules=splade, similarity_fn_name="dot").save_pretrained(str(folder / "splade"))
    rows = [network(folder / "rows", bias=-2.0), SpladePooling("max")]
    table = SparseStaticEmbedding(tokenizer())
    router = Router.for_query_document(query_modules=[table], document_modules=rows)
    SparseEncoder(modules=[router], similarity_fn_name="dot").save_pretrained(str(folder / "inference-free"))


def network(folder, *, bias):
    """A masked language model whose logits are highest for the tokens that it reads."""
    import torch
    from sentence_transformers.base.modules import Transformer
    from transformers import BertConfig, BertForMaskedLM

    tokens = tokenizer()
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=48,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = BertForMaskedLM(config)
        model.bert.embeddings.word_embeddings.weight.normal_(std=0.3)
        model.cls.predictions.transform.dense.weight.copy_(torch.eye(64))
        model.get_output_embeddings().bias.fill_(bias)
        model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return Transformer(str(folder), transformer_task="fill-mask")
