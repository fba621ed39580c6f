"""Numeric kernels: exact scores, asymmetric distances, top-k, in-process indexes."""

from alula.kernels.adc import (
    adc_inner_products,
    adc_scores,
    pack_bytes,
    pack_norms,
    sign_tables,
    unpack_bytes,
    unpack_norms,
)
from alula.kernels.code_index.index import CodeIndex
from alula.kernels.exact import exact_scores, top_k
from alula.kernels.inverted_index.index import InvertedIndex
from alula.kernels.linear import LinearQueries
from alula.kernels.topk import TopK
from alula.kernels.warm_up import warm_up

__all__ = [
    "CodeIndex",
    "InvertedIndex",
    "LinearQueries",
    "TopK",
    "adc_inner_products",
    "adc_scores",
    "exact_scores",
    "pack_bytes",
    "pack_norms",
    "sign_tables",
    "top_k",
    "unpack_bytes",
    "unpack_norms",
    "warm_up",
]
