"""The status of a serialised response, read from its first bytes.

Almost every response begins with its status, so a response with a thousand vectors need not be parsed for it.
"""

from __future__ import annotations

from typing import Literal

from google.protobuf.message import DecodeError
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from alula.wire_format import varint

_METHODS = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods_by_name
_STATUS = common_pb2.Status.DESCRIPTOR
Outcome = Literal["ok", "refused", "failed"]
INTERNAL = 5  # Milvus's code for "service internal error"
_FIRST_FIELD = b"\x0a"  # field 1, length-delimited
_RETURN_STATUS = {method.name for method in _METHODS.values() if method.output_type is _STATUS}
_BEGIN_WITH_STATUS = {
    method.name
    for method in _METHODS.values()
    if 1 in (fields := method.output_type.fields_by_number) and fields[1].message_type is _STATUS
}


def status_of(method: str, answer: bytes) -> common_pb2.Status | None:
    """The status in a response; None if it has none or cannot be parsed.

    Args:
        method: Name of the method.
        answer: The serialised response.
    """
    try:
        if method in _RETURN_STATUS:
            return common_pb2.Status.FromString(answer)
        if method in _BEGIN_WITH_STATUS:
            length, begin = varint(answer, 1) if answer[:1] == _FIRST_FIELD else (0, 0)
            return common_pb2.Status.FromString(answer[begin : begin + length])
    except (DecodeError, IndexError):
        pass
    return None


def refused(status: common_pb2.Status | None) -> bool:
    """True if a status is an error; servers before 2.3 set only the old code."""
    return status is not None and bool(status.code or status.error_code)


def outcome_of(status: common_pb2.Status | None) -> Outcome:
    """The outcome of a call that was answered with a status."""
    if not refused(status):
        return "ok"
    return "failed" if status is not None and status.code == INTERNAL else "refused"
