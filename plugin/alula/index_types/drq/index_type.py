"""The index type DRQ: its options, and the layout for a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from alula.encoders import DrqEncoder, Encoder, Metric
from alula.errors import UnsupportedError
from alula.index_types.base import IndexType, Lowering, Option, Sweep, VectorField
from alula.index_types.capabilities import Capabilities, binary_probe, sparse_probe
from alula.index_types.drq.adc import AdcLowering
from alula.index_types.drq.hamming import HammingLowering
from alula.index_types.drq.local_index import LocalDrq
from alula.index_types.local import LocalIndex
from alula.kernels import CodeIndex

BINARY_INDEXES = ("BIN_FLAT", "BIN_IVF_FLAT")


def _lengths(encoder: Encoder, _: Mapping[str, Any]) -> list[int]:
    """The five longest code lengths of every layout: the longest, and powers of two."""
    longest = encoder.info.max_bits
    return sorted({8 << n for n in range(16) if 8 << n < longest} | {longest}, reverse=True)[:5]


def _clusters(_: Encoder, settings: Mapping[str, Any]) -> list[int]:
    return [16, 64, 256] if settings.get("binary_index") == "BIN_IVF_FLAT" else []


class Drq(IndexType):
    """The index type DRQ, with its layouts ``hamming`` and ``adc``."""

    name = "DRQ"
    encoder_kind = "drq"
    summary = "Short binary codes of any length from one encoder; the length is chosen when searching."
    create_options = (
        Option(
            "layout",
            str,
            "hamming: sign bits in a binary index, ranked by code distance (least memory). "
            "adc: Milvus's sparse index computes the code distance itself. Default: hamming where the server has "
            "binary vectors.",
            choices=("hamming", "adc"),
        ),
        Option(
            "binary_index",
            str,
            "Layout hamming: the native index of the sign bits. BIN_IVF_FLAT visits a part of the rows; for 10 million "
            "rows and more.",
            "BIN_FLAT",
            choices=BINARY_INDEXES,
        ),
    )
    search_options = (
        Option(
            "bits",
            int,
            "Code length used for ranking, a multiple of 8; the longest by default.",
            minimum=8,
            sweep=Sweep(_lengths, "estimates"),
        ),
        Option("candidates", int, "Candidates to take from the native index and rank.", 1000),
        Option(
            "nprobe", int, "Layout hamming with BIN_IVF_FLAT: clusters to visit.", 16, sweep=Sweep(_clusters, "all")
        ),
    )
    local_options = (
        *search_options,
        Option("probes", int, "First codewords, of 256, to visit the rows of; all by default.", minimum=1),
    )

    probes = (
        sparse_probe("DRQ's layout adc works", "no layout adc"),
        binary_probe("BIN_FLAT", "DRQ's layout hamming works", "no layout hamming"),
        binary_probe(
            "BIN_IVF_FLAT", "layout hamming can visit a part of the rows only", "layout hamming visits all rows"
        ),
    )

    def choose(self, capabilities: Capabilities, options: Mapping[str, Any]) -> dict[str, str]:
        """See `IndexType.choose`."""
        layout, binary_index = options["layout"], options["binary_index"]
        if layout is None:
            layout = "hamming" if capabilities.binary_indexes else "adc"
        if layout == "adc":
            if not capabilities.sparse_index:
                raise UnsupportedError(
                    f"{capabilities.server} cannot index sparse vectors "
                    f"({capabilities.reasons.get('sparse_index', 'no reason given')}), which DRQ's layout adc needs; "
                    + ('use layout="hamming".' if capabilities.binary_indexes else "use Milvus 2.4 or later.")
                )
            return {"layout": "adc"}
        if binary_index not in capabilities.binary_indexes:
            have = ", ".join(sorted(capabilities.binary_indexes))
            todo = f'use binary_index="{have}"' if have else 'use layout="adc"' if capabilities.sparse_index else ""
            raise UnsupportedError(
                f"{capabilities.server} has no {binary_index} "
                f"({capabilities.reasons.get(binary_index, 'no reason given')}), which DRQ's layout hamming "
                f"needs; {todo or 'use Milvus 2.3 or later, or Milvus Lite 2.5'}."
            )
        return {"layout": "hamming", "binary_index": binary_index}

    def lowering(self, field: VectorField, encoder: Encoder, settings: Mapping[str, str]) -> Lowering:
        """See `IndexType.lowering`."""
        return (AdcLowering if settings["layout"] == "adc" else HammingLowering)(field, encoder, settings)

    def local(self, encoder: Encoder, metric: Metric, *, keep_vectors: bool) -> LocalIndex:
        """See `IndexType.local`."""
        info = encoder.info
        index = CodeIndex(info.levels, metric, info.scale, info.input_dim if keep_vectors else None)
        return LocalDrq(cast(DrqEncoder, encoder), index)

    def open_local(self, folder: Path, encoder: Encoder) -> LocalIndex:
        """See `IndexType.open_local`."""
        return LocalDrq(cast(DrqEncoder, encoder), CodeIndex.load(folder))
