"""The common part of the DRQ layouts: the encoder and the prefix of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from alula.encoders import DrqEncoder
from alula.errors import UsageError
from alula.index_types.base import Lowering

OVERSAMPLE = 10  # candidates to score exactly for each result


def prefix_levels(encoder: DrqEncoder, bits: int | None, lengths: Sequence[int] = ()) -> int:
    """The number of levels of a code of `bits` bits; the longest by default.

    Args:
        encoder: The encoder.
        bits: The length in bits.
        lengths: The lengths in levels that a search can ask for; those of the encoder by default.

    Raises:
        UsageError: If there is no such prefix.
    """
    longest = lengths[-1] if lengths else encoder.info.levels
    if bits is None:
        return longest
    if bits % 8 or bits > encoder.info.max_bits:
        raise UsageError(
            f"bits is {bits}; this encoder's codes have a multiple of 8 bits up to {encoder.info.max_bits}."
        )
    if lengths and bits // 8 not in lengths:
        stored = ", ".join(str(8 * t) for t in lengths)
        raise UsageError(f"bits is {bits}; the collection has the lengths {stored}. Choose one of them.")
    return bits // 8


def norm_lengths(levels: int) -> tuple[int, ...]:
    """The lengths, in levels, whose norms are stored: powers of two and the longest."""
    return tuple(sorted({t for t in (1, 2, 4, 8, 16, 32, 64, 128) if t < levels} | {levels}))


class DrqLowering(Lowering):
    """The common part of both layouts."""

    @property
    def drq(self) -> DrqEncoder:
        """The encoder."""
        return cast(DrqEncoder, self.encoder)
