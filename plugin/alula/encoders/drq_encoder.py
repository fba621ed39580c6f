"""Run a recurrent quantiser: vectors to codes, queries to look-up tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from alula.encoders.contract import QUERY_OUTPUTS, ROW_OUTPUTS, VECTORS
from alula.encoders.encoder import F32, U8, Encoder, NativeQuery, slices

NATIVE_QUERIES = 256  # encoded at a time: the look-up tables of one take 1 KiB a level


@dataclass(frozen=True)
class DrqRows:
    """Rows encoded by a ``drq`` encoder.

    Args:
        codes: uint8 (n, M): one codeword number per level.
        norms: float32 (n, M): Euclidean norm of the reconstruction by each prefix, in units of the encoder's scale.
        signs: uint8 (n, S / 8): sign bits, packed most significant bit first: of the
            vectors in files of `alula train`, and of the reconstructions in earlier ones.
    """

    codes: U8
    norms: F32
    signs: U8

    @classmethod
    def concatenate(cls, parts: Sequence[DrqRows]) -> DrqRows:
        """The rows of several parts, in their order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.codes for part in parts]),
            np.concatenate([part.norms for part in parts]),
            np.concatenate([part.signs for part in parts]),
        )


@dataclass(frozen=True)
class DrqQueries:
    """Queries encoded by a ``drq`` encoder.

    Args:
        lut: float32 (n, M, 256): inner product of the (normalised or scaled) query with each scaled codeword.
        signs: uint8 (n, S / 8): sign bits of the queries, comparable with those of rows by Hamming distance.
        norms: float32 (n,): Euclidean norm of the query as the encoder saw it (1 where it normalises).
    """

    lut: F32
    signs: U8
    norms: F32


class DrqEncoder(Encoder):
    """A recurrent quantiser: every prefix of its codes is a code."""

    kind: ClassVar = "drq"
    native_type: ClassVar = "BINARY_VECTOR"
    output_unit: ClassVar = "bits"

    @property
    def output_dim(self) -> int:
        """The number of bits of the longest code."""
        return self.info.max_bits

    @property
    def native_dim(self) -> int | None:
        """The number of sign bits."""
        return self.info.sign_bits

    @property
    def output_size(self) -> str:
        """See `Encoder.output_size`."""
        return f"{self.info.max_bits} bits"

    @property
    def output_details(self) -> Mapping[str, str]:
        """See `Encoder.output_details`."""
        info = self.info
        return {"code": f"{info.max_bits} bits ({info.levels} levels of 8)", "sign bits": str(info.sign_bits)}

    def encode_rows(self, vectors: npt.ArrayLike, *, checked: bool = False) -> DrqRows:
        """Encode vectors to codes, prefix norms and sign bits, slice by slice.

        Args:
            vectors: Array-like (n, d).
            checked: True for vectors as `check_vectors` returns them, which are not checked again.

        Raises:
            DataError: If the vectors cannot be used.
            EncoderError: If the encoder fails or breaks the contract.
        """
        levels, sign_bytes = self.info.levels, self.info.sign_bits // 8
        parts = []
        for part in slices(self.checked_vectors(vectors, checked)):
            codes, norms, signs = self._run(ROW_OUTPUTS["drq"], {VECTORS: part})
            self._check_output("codes", codes, (len(part), levels), np.uint8)
            self._check_output("norms", norms, (len(part), levels), np.float32)
            self._check_output("signs", signs, (len(part), sign_bytes), np.uint8)
            parts.append(DrqRows(codes, norms, signs))
        if not parts:
            empty = np.empty((0, levels), np.uint8), np.empty((0, levels), np.float32)
            return DrqRows(*empty, np.empty((0, sign_bytes), np.uint8))
        return DrqRows.concatenate(parts)

    def encode_queries(self, vectors: npt.ArrayLike, *, checked: bool = False) -> DrqQueries:
        """Encode queries to look-up tables and sign bits; arguments as `encode_rows`."""
        array = self.checked_vectors(vectors, checked, what="queries")
        levels, sign_bytes, n = self.info.levels, self.info.sign_bits // 8, len(array)
        norms = np.ones(n) if self.info.normalized else np.linalg.norm(array, axis=1) / self.info.scale
        if not n:
            lut, signs = np.empty((0, levels, 256), np.float32), np.empty((0, sign_bytes), np.uint8)
        else:
            lut, signs = self._run(QUERY_OUTPUTS["drq"], {VECTORS: array})
        self._check_output("lut", lut, (n, levels, 256), np.float32)
        self._check_output("query_signs", signs, (n, sign_bytes), np.uint8)
        return DrqQueries(lut, signs, norms.astype(np.float32))

    def native_rows(self, vectors: F32) -> U8:
        """See `Encoder.native_rows`."""
        return self.encode_rows(vectors, checked=True).signs

    def native_queries(self, vectors: F32) -> list[NativeQuery]:
        """See `Encoder.native_queries`."""
        parts = (self.encode_queries(part, checked=True).signs for part in slices(vectors, NATIVE_QUERIES))
        return [signs.tobytes() for part in parts for signs in part]

    def _probe(self, vectors: F32) -> None:
        super()._probe(vectors)
        self.encode_queries(vectors)
