"""Encoders: one ONNX file that maps vectors to sparse rows or codes, and queries to what is sent to Milvus."""

from alula.encoders.contract import EncoderInfo, Kind, Metric, check_model, read_model, write_info
from alula.encoders.encoder import DrqEncoder, DrqQueries, DrqRows, Encoder, FlopsEncoder, load_encoder

__all__ = [
    "DrqEncoder",
    "DrqQueries",
    "DrqRows",
    "Encoder",
    "EncoderInfo",
    "FlopsEncoder",
    "Kind",
    "Metric",
    "check_model",
    "load_encoder",
    "read_model",
    "write_info",
]
