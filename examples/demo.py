"""The whole job on real data, as a user would type it: ``make demo``.

100,000 GloVe word vectors become a FLOPS_SPARSE collection and a DRQ collection in an embedded Milvus Lite, then a
DRQ collection in a real Milvus 2.3.5 server that is installed and started for it. Everything lands in ``build/demo``.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.glove import load_words
from tools.servers.standalone import MilvusStandalone

PLACE = Path("build/demo")
WORDS = 100_000


def main() -> None:
    """Run the demo."""
    started = time.perf_counter()
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    say(f"{WORDS:,} GloVe word vectors, the most frequent first, as a Parquet file: {PLACE}/words.parquet")
    words = load_words(0, 0, most=WORDS)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(words.rows.ravel()), words.rows.shape[1])
    table = pa.table({"id": words.words, "rank": pa.array(np.arange(WORDS)), "vector": vectors})
    pq.write_table(table, PLACE / "words.parquet")

    say("\n1. Train two encoders: a minute or two each, on two cores and no GPU.")
    alula("train flops words.parquet --out words-flops.onnx")
    alula("train drq words.parquet --out words-drq.onnx --epochs 4")

    say("\n2. Sparse rows in an embedded Milvus. Words near 'violin', then near 'sushi' among the rarer words only.")
    alula(
        "create words_sparse --uri words.db --index-type FLOPS_SPARSE --encoder words-flops.onnx --like words.parquet"
    )
    alula("load words_sparse words.parquet --uri words.db --encoder words-flops.onnx")
    alula("search words_sparse --id violin -o rank --limit 5 --uri words.db --encoder words-flops.onnx")
    alula(
        "search words_sparse --id sushi --filter 'rank > 20000' -o rank --limit 5 --uri words.db "
        "--encoder words-flops.onnx"
    )

    say("\n3. Binary codes, without the vectors: 80 bytes of index per row. The code length is chosen when searching.")
    say(f"   The query is a vector: {PLACE}/query.npy holds the one of 'violin'.")
    np.save(PLACE / "query.npy", words.rows[[words.words.index("violin")]])
    alula(
        "create words_codes --uri words.db --index-type DRQ --encoder words-drq.onnx --like words.parquet "
        "--drop-vectors"
    )
    alula("load words_codes words.parquet --uri words.db --encoder words-drq.onnx")
    for bits in (32, 128):
        alula(
            f"search words_codes --vectors query.npy --bits {bits} -o rank --limit 5 --uri words.db "
            "--encoder words-drq.onnx"
        )
    alula("describe words_codes --uri words.db")

    say("\n4. The same in a real Milvus server.")
    with MilvusStandalone() as server:
        alula(f"doctor --uri {server.uri}")
        alula(f"create words --uri {server.uri} --index-type DRQ --encoder words-drq.onnx --like words.parquet")
        alula(f"load words words.parquet --uri {server.uri} --encoder words-drq.onnx")
        alula(f"search words --id violin -o rank --limit 5 --uri {server.uri} --encoder words-drq.onnx")
        alula(f"drop words --yes --uri {server.uri}")
    say(f"\nDone in {time.perf_counter() - started:.0f} s. The encoders and the database words.db are in {PLACE}.")


def alula(command: str) -> None:
    """Run one command as a user would, in the demo's folder."""
    say(f"\n$ alula {command}")
    subprocess.run([Path(sys.executable).with_name("alula"), *shlex.split(command)], cwd=PLACE, check=True)


def say(text: str) -> None:
    """Print a line at once, so that it comes before the output of the command after it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
