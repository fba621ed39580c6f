"""Run a recurrent quantiser: vectors to codes, queries to look-up tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from alula.encoders.contract import VECTORS
from alula.encoders.encoder import F32, U8, Encoder, NativeQuery, slices


def default_sign_bits(dim: int) -> int:
    """Two bits for three numbers of a vector, in steps of 64, and at least 256.

    Args:
        dim: Length d of a vector.
    """
    return max(256, 64 * round(dim / 96))


@dataclass(frozen=True)
class DrqRows:
    """Rows encoded by a ``drq`` encoder.

    Args:
        codes: uint8 (n, M): one codeword number per level.
        norms: float32 (n, M): Euclidean norm of the reconstruction by each prefix, in units of the encoder's scale.
        signs: uint8 (n, S / 8): sign bits, packed most significant bit first: of the
            vectors in files of `alula train`, and of the reconstructions in earlier ones.
        sign_lengths: float32 (n,): a row's distance from the mean in units of the encoder's scale, which estimates by
            signs need for L2; 1 for the other metrics and for encoders whose signs do not rank.
    """

    codes: U8
    norms: F32
    signs: U8
    sign_lengths: F32

    @classmethod
    def concatenate(cls, parts: Sequence[DrqRows]) -> DrqRows:
        """The rows of several parts, in their order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.codes for part in parts]),
            np.concatenate([part.norms for part in parts]),
            np.concatenate([part.signs for part in parts]),
            np.concatenate([part.sign_lengths for part in parts]),
        )


@dataclass(frozen=True)
class DrqQueries:
    """Queries encoded by a ``drq`` encoder.

    Args:
        lut: float32 (n, M, 256): inner product of the (normalised or scaled) query with each scaled codeword.
        signs: uint8 (n, S / 8): sign bits of the queries, comparable with those of rows by Hamming distance.
        norms: float32 (n,): Euclidean norm of the query as the encoder saw it (1 where it normalises).
        sign_weights: float32 (n, S): weights w of a row's signs s (-1 or 1); (n, 0) where signs do not rank.
        sign_bias: float32 (n,), b. Estimates are <w, s> + b of the cosine, for IP of the inner product of directions,
            and b + l^2 - 2 <w, s> of the squared distance in units of the scale, with l the row's ``sign_lengths``.
    """

    lut: F32
    signs: U8
    norms: F32
    sign_weights: F32
    sign_bias: F32


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

    def encode_rows(self, vectors: npt.ArrayLike, *, checked: bool = False, codes: bool = True) -> DrqRows:
        """Encode vectors to codes, prefix norms and sign bits, slice by slice.

        Args:
            vectors: Array-like (n, d).
            checked: True for vectors as `check_vectors` returns them, which are not checked again.
            codes: False for rows of sign bits alone, which need no beam search: ``codes`` and ``norms`` are then
                (n, 0).

        Raises:
            DataError: If the vectors cannot be used.
            EncoderError: If the encoder fails or breaks the contract.
        """
        levels, sign_bytes = self.info.levels if codes else 0, self.info.sign_bits // 8
        names = self.info.row_outputs if codes else self.info.sign_row_outputs
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "codes": ((levels,), np.uint8),
            "norms": ((levels,), np.float32),
            "signs": ((sign_bytes,), np.uint8),
            "sign_lengths": ((), np.float32),
        }
        parts = [DrqRows(*(np.empty((0, *shape), dtype) for shape, dtype in shapes.values()))]
        for part in slices(self.checked_vectors(vectors, checked)):
            found = dict(zip(names, self._run(names, {VECTORS: part}), strict=True))
            for name, (shape, dtype) in shapes.items():
                if name not in found:
                    found[name] = np.ones((len(part), *shape), dtype)
                self._check_output(name, found[name], (len(part), *shape), dtype)
            parts.append(DrqRows(*(found[name] for name in shapes)))
        return DrqRows.concatenate(parts[1:] or parts)

    def encode_queries(self, vectors: npt.ArrayLike, *, checked: bool = False, tables: bool = True) -> DrqQueries:
        """Encode queries to look-up tables and to sign bits with their weights.

        Args:
            vectors: Array-like (n, d).
            checked: As `encode_rows`.
            tables: False for queries of sign bits alone: ``lut`` is then (n, 0, 256).

        Raises:
            DataError: If the vectors cannot be used.
            EncoderError: If the encoder fails or breaks the contract.
        """
        array = self.checked_vectors(vectors, checked, what="queries")
        n, bits, levels = len(array), self.info.sign_bits, self.info.levels if tables else 0
        norms = np.ones(n) if self.info.normalized else np.linalg.norm(array, axis=1) / self.info.scale
        found: dict[str, npt.NDArray[Any]] = {}
        if n:
            names = self.info.query_outputs if tables else self.info.sign_query_outputs
            found = dict(zip(names, self._run(names, {VECTORS: array}), strict=True))
        weights = bits if self.info.signs_rank else 0
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "lut": ((n, levels, 256), np.float32),
            "query_signs": ((n, bits // 8), np.uint8),
            "sign_weights": ((n, weights), np.float32),
            "sign_bias": ((n,), np.float32),
        }
        for name, (shape, dtype) in shapes.items():
            if name not in found:
                found[name] = np.zeros(shape, dtype)
            self._check_output(name, found[name], shape, dtype)
        return DrqQueries(
            found["lut"],
            found["query_signs"],
            norms.astype(np.float32),
            found["sign_weights"],
            found["sign_bias"],
        )

    def native_rows(self, vectors: F32) -> U8:
        """See `Encoder.native_rows`."""
        return self.encode_rows(vectors, checked=True, codes=False).signs

    def native_queries(self, vectors: F32) -> list[NativeQuery]:
        """See `Encoder.native_queries`."""
        parts = (self.encode_queries(part, checked=True, tables=False).signs for part in slices(vectors))
        return [signs.tobytes() for part in parts for signs in part]

    def _probe(self, vectors: F32) -> None:
        super()._probe(vectors)
        self.encode_queries(vectors)
