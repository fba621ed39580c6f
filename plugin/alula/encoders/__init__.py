"""Encoders: one ONNX file that maps vectors, images or text to rows and queries."""

from alula.encoders.contract import MAX_DIM, EncoderInfo, Input, Kind, check_model, read_model, write_info
from alula.encoders.drq_encoder import DrqEncoder, DrqQueries, DrqRows, default_sign_bits
from alula.encoders.encoder import Encoder, Inputs, NativeQuery
from alula.encoders.flops_encoder import FlopsEncoder, sparse_queries
from alula.encoders.linear import LinearHead, read_linear_head
from alula.encoders.loading import ENCODERS, load_encoder
from alula.encoders.metric import METRICS, Metric, better_is_larger
from alula.encoders.queries import query_vectors

__all__ = [
    "ENCODERS",
    "MAX_DIM",
    "METRICS",
    "DrqEncoder",
    "DrqQueries",
    "DrqRows",
    "Encoder",
    "EncoderInfo",
    "FlopsEncoder",
    "Input",
    "Inputs",
    "Kind",
    "LinearHead",
    "Metric",
    "NativeQuery",
    "better_is_larger",
    "check_model",
    "default_sign_bits",
    "load_encoder",
    "query_vectors",
    "read_linear_head",
    "read_model",
    "sparse_queries",
    "write_info",
]
