"""Tiny sentence-transformers models of random weights, saved as a user would have saved them."""

from __future__ import annotations

import string
from pathlib import Path

WORDS = ("the", "of", "and", "kite", "wing", "feather", "bird", "sky", "river", "stone", "house", "music", "water")
MAX_TOKENS = 24
TEXTS = [
    "the kite and the sky",
    "A bird of fire!",
    "stones, rivers; houses?",
    "music 24 " * 40,  # longer than the model reads
    "water light light light",
    "",
    "feather",
]


def tokenizer():
    """WordPiece over a few words, letters and digits."""
    from transformers import BertTokenizerFast

    characters = list(string.ascii_lowercase + string.digits)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *("##" + c for c in characters), *WORDS]
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}, model_max_length=MAX_TOKENS)


def save_models(folder: Path) -> None:
    """Save ``splade`` (dot product, a query prompt), ``inference-free``, ``csr`` (cosine) and ``dense`` in a folder."""
    import torch
    from sentence_transformers import SentenceTransformer, SparseEncoder
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder, SparseStaticEmbedding, SpladePooling
    from transformers import BertConfig, BertForMaskedLM

    tokens = tokenizer()
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=48,
        initializer_range=0.3,  # larger than usual: texts then differ
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForMaskedLM(config).save_pretrained(folder / "bert")
        tokens.save_pretrained(folder / "bert")
        autoencoder = SparseAutoEncoder(32, hidden_dim=128, k=8, k_aux=16, normalize=True)
        torch.nn.init.normal_(autoencoder.pre_bias, std=0.1)
        torch.nn.init.normal_(autoencoder.latent_bias, std=0.1)
    words = Transformer(str(folder / "bert"), transformer_task="fill-mask")
    splade = SparseEncoder(modules=[words, SpladePooling("max")], prompts={"query": "query: ", "document": ""})
    splade.save_pretrained(str(folder / "splade"))
    router = Router.for_query_document(
        query_modules=[
            SparseStaticEmbedding(tokens, torch.rand(len(tokens), generator=torch.Generator().manual_seed(1)))
        ],
        document_modules=[words, SpladePooling("max")],
    )
    SparseEncoder(modules=[router], similarity_fn_name="dot").save_pretrained(str(folder / "inference-free"))
    vectors = Transformer(str(folder / "bert"))
    SparseEncoder(modules=[vectors, Pooling(32, "mean"), autoencoder], similarity_fn_name="cosine").save_pretrained(
        str(folder / "csr")
    )
    SentenceTransformer(
        modules=[vectors, Pooling(32, "mean"), Normalize()], prompts={"query": "a query ", "document": "the "}
    ).save_pretrained(str(folder / "dense"))
