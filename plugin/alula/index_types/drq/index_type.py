"""The index type DRQ: its options, and the layout for a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from alula.encoders import DrqEncoder, Encoder, Metric
from alula.errors import UnsupportedError, UsageError
from alula.index_types.base import NO_SETTINGS, IndexType, Lowering, VectorField
from alula.index_types.capabilities import BINARY_INDEXES, Capabilities, binary_probe, sparse_probe
from alula.index_types.drq.adc import AdcLowering
from alula.index_types.drq.hamming import AUTO, NORMS, HammingLowering
from alula.index_types.drq.local_index import LocalDrq, LocalSigns
from alula.index_types.drq.lowering import OVERSAMPLE, norm_lengths
from alula.index_types.local import LocalIndex
from alula.index_types.options import Option, Sweep, candidate_options
from alula.kernels import CodeIndex


def _lengths(encoder: Encoder, settings: Mapping[str, Any]) -> list[int]:
    """The longest code lengths of a collection, if it stores codes; at most five."""
    longest = int(settings.get("code_bits", encoder.info.max_bits))
    most = NORMS if "code_bits" in settings else 5
    return [8 * length for length in reversed(norm_lengths(longest // 8)[-most:])] if longest else []


def _clusters(_: Encoder, settings: Mapping[str, Any]) -> list[int]:
    return [16, 64, 256] if settings.get("binary_index") == "BIN_IVF_FLAT" else []


def _breadths(_: Encoder, settings: Mapping[str, Any]) -> list[int]:
    return [500, 1000] if settings.get("binary_index") == "HNSW" else []


class Drq(IndexType):
    """The index type DRQ, with its layouts ``hamming`` and ``adc``."""

    name = "DRQ"
    encoder_kind = "drq"
    summary = "Learned sign bits in a binary index, or short codes of any length, from one encoder."
    create_options = (
        Option(
            "layout",
            str,
            "hamming: sign bits in a binary index (least memory). adc: codes in a sparse index, where Milvus computes "
            "their distance itself. Default: hamming where the server has binary vectors.",
            choices=("hamming", "adc"),
        ),
        Option(
            "binary_index",
            str,
            "Layout hamming: the native index of the sign bits. BIN_IVF_FLAT and HNSW visit a part of the rows, for 10 "
            "million rows and more; HNSW's graph takes more memory than 256 sign bits.",
            "BIN_FLAT",
            choices=tuple(BINARY_INDEXES),
        ),
        Option(
            "code_bits",
            int,
            "Layout hamming: bits of the code to store beside the sign bits; 0 for none. Default: the whole code where "
            "the vectors are dropped and it is at least as long as the sign bits, and where sign bits cannot rank (IP, "
            "encoder files of format 1); otherwise none.",
            minimum=0,
        ),
    )
    oversample = OVERSAMPLE
    ranks_without_vectors = True
    search_options = (
        Option(
            "bits",
            int,
            "Code length used for ranking, a multiple of 8, where codes are stored; the longest by default.",
            minimum=8,
            sweep=Sweep(_lengths, "estimates"),
        ),
        *candidate_options(OVERSAMPLE),
        Option(
            "nprobe", int, "Layout hamming with BIN_IVF_FLAT: clusters to visit.", 16, sweep=Sweep(_clusters, "all")
        ),
        Option(
            "ef",
            int,
            "Layout hamming with HNSW: nearest rows to keep while walking the graph, at least the candidates.",
            sweep=Sweep(_breadths, "all"),
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
        binary_probe("HNSW", "layout hamming can walk a graph of the sign bits", "no graph of sign bits"),
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
            if options["code_bits"] is not None:
                raise UsageError('layout="adc" stores the whole code; leave code_bits=... out.')
            return {"layout": "adc"}
        if binary_index not in capabilities.binary_indexes:
            have = ", ".join(sorted(capabilities.binary_indexes))
            todo = f'use binary_index="{have}"' if have else 'use layout="adc"' if capabilities.sparse_index else ""
            raise UnsupportedError(
                f"{capabilities.server} has no {binary_index} "
                f"({capabilities.reasons.get(binary_index, 'no reason given')}), which DRQ's layout hamming "
                f"needs; {todo or 'use Milvus 2.3 or later, or Milvus Lite 2.5'}."
            )
        code_bits = AUTO if options["code_bits"] is None else str(options["code_bits"])
        return {"layout": "hamming", "binary_index": binary_index, "code_bits": code_bits}

    def lowering(self, field: VectorField, encoder: Encoder, settings: Mapping[str, str]) -> Lowering:
        """See `IndexType.lowering`."""
        return (AdcLowering if settings["layout"] == "adc" else HammingLowering)(field, encoder, settings)

    def local(
        self,
        encoder: Encoder,
        metric: Metric,
        *,
        keep_vectors: bool,
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> LocalIndex:
        """See `IndexType.local`."""
        info, drq, dim = encoder.info, cast(DrqEncoder, encoder), encoder.info.input_dim if keep_vectors else None
        if settings.get("code_bits") == "0":
            levels = info.sign_bits // 8
            return LocalSigns(drq, CodeIndex(levels, metric, info.scale, dim, lengths=[levels]))
        return LocalDrq(drq, CodeIndex(int(settings.get("code_bits", info.max_bits)) // 8, metric, info.scale, dim))

    def open_local(self, folder: Path, encoder: Encoder, *, settings: Mapping[str, str] = NO_SETTINGS) -> LocalIndex:
        """See `IndexType.open_local`."""
        kind = LocalSigns if settings.get("code_bits") == "0" else LocalDrq
        return kind(cast(DrqEncoder, encoder), CodeIndex.load(folder))
