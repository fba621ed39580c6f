"""DRQ: codes with usable prefixes, searched by Hamming or asymmetric distance.

Song et al., Deep Recurrent Quantization for Generating Sequential Binary Codes, IJCAI 2019.
"""

from alula.index_types.drq.index_type import Drq

__all__ = ["Drq"]
