"""A proxy that applies a version's rules to the calls of a real engine."""

from __future__ import annotations

import threading
from collections import deque
from concurrent import futures
from types import TracebackType
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from tools.servers.versions import imports, indexes, limits, schemas, searching
from tools.servers.versions.rule import Call, DeniedError, Known, RefusedError, Rule, params_of, parse

LOOPBACK = "127.0.0.1"
SERVICE = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"]
PREFIX = f"/{SERVICE.full_name}/"
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
KEPT_REQUESTS = 10_000
DROPPED = ("user-agent", "te", "content-type")

# The version of each profile is the last one whose source was read.
PROFILES = {"2.4": "2.4.17", "2.5": "2.5.24", "2.6": "2.6.20", "3.0": "3.0.0"}
RULES: tuple[type[Rule], ...] = (
    limits.Rights,
    limits.FlushRate,
    limits.SchemaMismatch,
    schemas.ServerVersion,
    schemas.VectorFieldLimit,
    schemas.NoNullableVectors,
    schemas.DescriptionLength,
    schemas.DescriptionAltered,
    schemas.PropertiesDeleted,
    schemas.AliasesListed,
    schemas.StaleAliases,
    indexes.OneDistinctIndex,
    indexes.MmapOfIndexes,
    indexes.FieldMemory,
    indexes.WarmedFields,
    indexes.HalfPrecisionPostings,
    indexes.Sindi,
    indexes.FaissStrings,
    imports.ForgottenImports,
    imports.ImportsWithoutNames,
    imports.RepeatedImports,
    searching.NamespaceAsked,
    searching.PartitionKeyAsked,
    searching.SearchMessages,
    searching.ExpressionCache,
    searching.FilterTemplates,
)
T = TypeVar("T", bound=Rule)


class VersionProxy:
    """A proxy on a free port before a real engine, for one ``with`` block.

    Args:
        upstream: The engine's address, ``http://host:port``.
        profile: A key of `PROFILES`, or a version.
        also: Rules that hold only where a server is configured so.

    Attributes:
        rules: The version's rules.
    """

    def __init__(self, upstream: str, profile: str, also: tuple[type[Rule], ...] = ()) -> None:
        version = parse(PROFILES.get(profile, profile))
        self.rules = [rule(version) for rule in (*RULES, *also) if rule.applies(version)]
        self._channel = grpc.insecure_channel(upstream.removeprefix("http://"), UNLIMITED)
        self._known: dict[tuple[str, str], Known] = {}
        self._requests: deque[tuple[str, bytes]] = deque(maxlen=KEPT_REQUESTS)
        self._lock = threading.Lock()
        # Milvus lets its clients ping a connection every few seconds, and gRPC's servers do not by default
        options = [*UNLIMITED, ("grpc.http2.max_ping_strikes", 0)]
        self._server = grpc.server(futures.ThreadPoolExecutor(16), handlers=[_Handler(self)], options=options)
        self.port = self._server.add_insecure_port(f"{LOOPBACK}:0")
        self.uri = f"http://{LOOPBACK}:{self.port}"

    def __enter__(self) -> VersionProxy:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(0).wait()
        self._channel.close()

    def rule(self, kind: type[T]) -> T:
        """The rule of a kind, with its state."""
        return next(rule for rule in self.rules if isinstance(rule, kind))

    def has(self, kind: type[Rule]) -> bool:
        """True if the version has a rule."""
        return any(isinstance(rule, kind) for rule in self.rules)

    def requests(self, method: str) -> list[Any]:
        """The clients' requests of a method, the last ones."""
        message = GetMessageClass(SERVICE.methods_by_name[method].input_type)
        return [message.FromString(request) for name, request in list(self._requests) if name == method]

    def serve(self, path: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer a call by the rules and the engine."""
        name = path.removeprefix(PREFIX)
        self._requests.append((name, request))
        metadata = tuple(
            (key, value)
            for key, value in context.invocation_metadata()
            if key not in DROPPED and not key.startswith("grpc-")
        )
        seconds = context.time_remaining()
        given = {"metadata": metadata, "timeout": seconds if seconds and seconds < 1e6 else None}
        try:
            if name not in SERVICE.methods_by_name:
                answered: bytes = self._channel.unary_unary(path)(request, **given)
                return answered
            return self._ruled(name, request, given)
        except DeniedError as error:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except grpc.RpcError as error:
            context.abort(error.code(), error.details() or "")
        except Exception as error:  # clients repeat other codes for minutes
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"A rule failed: {error!r}")
        raise AssertionError  # abort raises

    def _ruled(self, name: str, request: bytes, given: dict[str, Any]) -> bytes:
        method = SERVICE.methods_by_name[name]
        parsed, response_type = (
            GetMessageClass(method.input_type).FromString(request),
            GetMessageClass(method.output_type),
        )

        def send(other: str, message: Message) -> Any:
            answer_type = GetMessageClass(SERVICE.methods_by_name[other].output_type)
            return answer_type.FromString(
                self._channel.unary_unary(PREFIX + other)(message.SerializeToString(), **given)
            )

        call = Call(name, parsed, dict(given["metadata"]), Known(), send)
        known = self._created(call) if name == "CreateCollection" else self._known.get(call.name, Known())
        call = Call(name, parsed, call.metadata, known, send)
        asked, rules = type(parsed).FromString(request), [rule for rule in self.rules if name in rule.methods]
        response: Any = None
        try:
            with self._lock:
                answers = (rule.ask(call) for rule in rules)
                response = next((found for found in answers if found is not None), None)
            if response is not None:
                return bytes(response.SerializeToString())
            response = send(name, parsed)
            with self._lock:
                self._remember(Call(name, asked, call.metadata, known, send), response)
                for rule in rules:
                    rule.answer(call, response)
        except RefusedError as error:
            response = response_type()
            status = response if isinstance(response, common_pb2.Status) else response.status
            status.CopyFrom(common_pb2.Status(code=error.code, error_code=error.old_code, reason=str(error)))
        return bytes(response.SerializeToString())

    def _created(self, call: Call) -> Known:
        schema = schema_pb2.CollectionSchema.FromString(call.request.schema)
        return Known(schema, {pair.key: pair.value for pair in call.request.properties})

    def _remember(self, call: Call, response: Any) -> None:
        """Keep what rules ask about collections, after a call that the engine carried out."""
        status = response if isinstance(response, common_pb2.Status) else getattr(response, "status", None)
        if status is not None and (status.code or status.error_code):
            return
        if call.method == "CreateCollection":
            self._known[call.name] = call.known
        elif call.method == "DropCollection":
            self._known.pop(call.name, None)
        elif call.method == "RenameCollection":
            database = call.name[0]
            self._known[database, call.request.newName] = self._known.pop((database, call.request.oldName), Known())
        elif call.method == "CreateIndex":
            call.known.indexes[call.request.field_name] = params_of(call.request.extra_params)
            call.known.names[call.request.field_name] = call.request.index_name or call.request.field_name
        elif call.method == "DropIndex":
            named = {name: field for field, name in call.known.names.items()}
            field = call.request.field_name or named.get(call.request.index_name, "")
            call.known.indexes.pop(field, None)
            call.known.names.pop(field, None)


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, proxy: VersionProxy) -> None:
        self._proxy = proxy

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._proxy.serve(path, request, context))
