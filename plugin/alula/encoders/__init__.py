"""Encoders: one ONNX file that maps vectors, images or text to sparse rows or codes, and queries to what is sent."""

from alula.encoders.contract import MAX_DIM, EncoderInfo, Input, Kind, Metric, check_model, read_model, write_info
from alula.encoders.encoder import DrqEncoder, DrqQueries, DrqRows, Encoder, FlopsEncoder, Inputs, load_encoder
from alula.encoders.linear import LinearHead, read_linear_head

__all__ = [
    "MAX_DIM",
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
    "check_model",
    "load_encoder",
    "read_linear_head",
    "read_model",
    "write_info",
]
