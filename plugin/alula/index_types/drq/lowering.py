"""The common part of the DRQ layouts: the encoder and the prefix of a search."""

from __future__ import annotations

from typing import cast

from alula.encoders import DrqEncoder
from alula.errors import UsageError
from alula.index_types.base import Lowering


def prefix_levels(encoder: DrqEncoder, bits: int | None) -> int:
    """The number of levels of a code of `bits` bits; all by default.

    Raises:
        UsageError: If the encoder's codes have no such prefix.
    """
    longest = encoder.info.max_bits
    if bits is None:
        return encoder.info.levels
    if bits % 8 or bits > longest:
        raise UsageError(f"bits is {bits}; this encoder's codes have a multiple of 8 bits up to {longest}.")
    return bits // 8


class DrqLowering(Lowering):
    """The common part of both layouts: the encoder and the prefix."""

    @property
    def drq(self) -> DrqEncoder:
        """The encoder."""
        return cast(DrqEncoder, self.encoder)

    def prefix(self, bits: int | None) -> int:
        """The number of levels of a code of `bits` bits."""
        return prefix_levels(self.drq, bits)
