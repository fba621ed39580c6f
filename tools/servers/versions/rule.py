"""One difference between versions of Milvus, and a call that it applies to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from google.protobuf.message import Message
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

Version = tuple[int, ...]


class RefusedError(Exception):
    """Milvus answers with a status that is an error.

    Args:
        code: Milvus's code.
        reason: Its sentence.
        old_code: The code of versions before 2.3, which clients still read.
    """

    def __init__(self, code: int, reason: str, old_code: int = common_pb2.ErrorCode.UnexpectedError) -> None:
        super().__init__(reason)
        self.code = code
        self.old_code = old_code


class DeniedError(Exception):
    """Milvus ends the call with the gRPC status PERMISSION_DENIED."""


@dataclass
class Known:
    """A collection that was created through the proxy.

    Args:
        schema: Its ``CollectionSchema`` as the client sent it.
        properties: Its properties as the client sent them.
        indexes: Parameters of its indexes, by field, as the client sent them.
        names: Names of its indexes, by field.
    """

    schema: Any = field(default_factory=schema_pb2.CollectionSchema)
    properties: dict[str, str] = field(default_factory=dict)
    indexes: dict[str, dict[str, str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A call that passes the proxy.

    Args:
        method: Its method.
        request: The client's request; rules change it in place.
        metadata: The client's metadata.
        known: The collection that the request names; an empty one if it was not created here.
        send: Calls a method of the engine.
    """

    method: str
    request: Any
    metadata: dict[str, Any]
    known: Known
    send: Callable[[str, Message], Any]

    @property
    def name(self) -> tuple[str, str]:
        """Database and name of the collection."""
        database = getattr(self.request, "db_name", "") or str(self.metadata.get("dbname", ""))
        return database or "default", getattr(self.request, "collection_name", "")

    def describe(self) -> Any:
        """The engine's description of the collection."""
        database, name = self.name
        request = milvus_pb2.DescribeCollectionRequest(db_name=database, collection_name=name)
        return self.send("DescribeCollection", request)


class Rule:
    """One difference; an instance keeps the state of one proxy.

    Attributes:
        since: The first version with it.
        before: The first version without it again; "" for none.
        source: Repository, file and function where it was read.
        methods: The methods that it applies to.
    """

    since: ClassVar[str]
    before: ClassVar[str] = ""
    source: ClassVar[str]
    methods: ClassVar[tuple[str, ...]]

    def __init__(self, version: Version) -> None:
        self.version = version

    @classmethod
    def applies(cls, version: Version) -> bool:
        """True if the version has this difference."""
        return parse(cls.since) <= version and (not cls.before or version < parse(cls.before))

    def ask(self, call: Call) -> Message | None:
        """Look at a call before the engine does.

        Returns:
            The response, if the engine is not to be asked.

        Raises:
            RefusedError, DeniedError: As Milvus refuses it.
        """

    def answer(self, call: Call, response: Any) -> None:
        """Look at the engine's response, and change it in place."""


def parse(version: str) -> Version:
    """``"2.4.17"`` as (2, 4, 17)."""
    return tuple(int(part) for part in version.split("."))


def params_of(pairs: Iterable[Any]) -> dict[str, str]:
    """Parameters as Milvus reads them: those in ``params`` beside the others."""
    given = {pair.key: pair.value for pair in pairs}
    inner = json.loads(given.pop("params", "") or "{}")
    return {**{key: str(value) for key, value in inner.items()}, **given}


def written(pairs: Any, key: str, value: str | None) -> None:
    """Set a parameter in place, in ``params`` too; None removes it."""
    kept = {pair.key: pair.value for pair in pairs if pair.key != key}
    if "params" in kept:
        kept["params"] = json.dumps({k: v for k, v in json.loads(kept["params"] or "{}").items() if k != key})
    if value is not None:
        kept[key] = value
    del pairs[:]
    pairs.extend(common_pb2.KeyValuePair(key=k, value=v) for k, v in kept.items())
