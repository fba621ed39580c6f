"""Factory strings of faiss, as Milvus 3.0's index type FAISS takes them.

A string such as ``OPQ64_192,IVF1024,PQ64x4fs,RFlat`` names what vectors pass through, from a transformation to codes
that rank the best again: https://github.com/facebookresearch/faiss/wiki/The-index-factory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PART = re.compile(r"(?:[^,()]|\((?:[^()]|\([^()]*\))*\))+")  # between commas, but not those in parentheses
_TO_DIM = re.compile(r"(?:PCAW?R?|RR|Pad|OPQ\d+_)(\d+)")  # transformations to another dimension
_SAME_DIM = re.compile(r"OPQ\d+|L2[Nn]orm|ITQ|IDMap2?")
_LISTS = re.compile(r"IVF(\d+)|IMI(\d+)x(\d+)")  # what follows is the index of the centroids
_GRAPH = re.compile(r"HNSW(\d+)(?:_(.+))?")
_REFINED = re.compile(r"R(Flat)|Refine\((.+)\)")
_PQ = re.compile(r"PQ(\d+)(?:x(\d+))?(?:fs.*|np)?")
_SQ = re.compile(r"SQ(?:(\d+)|b?fp?16)")
_RABITQ_FACTORS = 8  # bytes beside a bit of each dimension


@dataclass(frozen=True)
class Factory:
    """A factory string, read.

    Args:
        lists: The number of inverted lists; 0 without.
        links: The links of a graph's node; 0 without a graph of the rows.
        refines: True if a second code of each row ranks the best by the first again.
        code_bytes: Bytes of a row's code; None if they are not known here.
        refining_bytes: Bytes of a row's second code; None if they are not known here.
    """

    lists: int
    links: int
    refines: bool
    code_bytes: float | None
    refining_bytes: float | None


def read_factory(text: str, dim: int) -> Factory:
    """Read a factory string for vectors of a dimension."""
    lists = links = 0
    inner, refines = dim, False
    code: float | None = 4.0 * dim
    refining: float | None = 0.0
    for part in _PART.findall(text):
        if found := _TO_DIM.fullmatch(part):
            inner = int(found[1])
            code = 4.0 * inner
        elif found := _REFINED.fullmatch(part):
            refines, refining = True, _code_bytes(found[1] or found[2], dim)
        elif found := _LISTS.match(part):
            lists = int(found[1]) if found[1] else 2 ** (int(found[2]) * int(found[3]))
        elif found := _GRAPH.fullmatch(part):
            links = int(found[1])
            code = _code_bytes(found[2] or "Flat", inner)
        elif not _SAME_DIM.fullmatch(part):
            code = _code_bytes(part, inner)
    return Factory(lists, links, refines, code, refining)


def _code_bytes(part: str, dim: int) -> float | None:
    """Bytes of a row in the part of a string that encodes it."""
    if part == "Flat":
        return 4.0 * dim
    if found := _SQ.fullmatch(part):
        return dim * int(found[1] or 16) / 8
    if found := _PQ.fullmatch(part):
        return int(found[1]) * int(found[2] or 8) / 8
    if part == "RaBitQ":
        return -(-dim // 8) + _RABITQ_FACTORS
    return None
