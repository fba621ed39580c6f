"""OpenTelemetry traces, off unless the environment asks for them.

The variables are OpenTelemetry's own: ``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_EXPORTER``, ``OTEL_SERVICE_NAME``
and the others. A program that has set up OpenTelemetry itself gets the spans of the library too.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from alula.errors import UsageError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HEADERS = ("traceparent", "tracestate", "baggage")
_FLUSH_SECONDS = 1.0  # at the end of a program, for a collector that does not answer
Entries = Iterable[tuple[str, Any]]


def is_wanted() -> bool:
    """True if the environment names a place for traces."""
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "")
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    return bool(exporter) or any(os.environ.get(name) for name in _ENDPOINTS)


def start(service: str, *, clients: bool) -> Callable[[], None]:
    """Set up OpenTelemetry as the environment says, for a program.

    Args:
        service: The name of the program, unless ``OTEL_SERVICE_NAME`` has one.
        clients: True to trace the program's calls of gRPC, which take the trace to Milvus, and its threads.

    Returns:
        A function that sends the last spans, in at most a second.

    Raises:
        UsageError: If the environment names an exporter that is unknown or not installed.
    """
    os.environ.setdefault("OTEL_SERVICE_NAME", service)
    try:
        from opentelemetry import trace  # noqa: PLC0415 (most programs trace nothing)
        from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient  # noqa: PLC0415
        from opentelemetry.instrumentation.threading import ThreadingInstrumentor  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        names = (os.environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(",")
        exporters = [_exporter(name.strip()) for name in names]
    except ImportError as error:
        raise UsageError(f"Traces need OpenTelemetry ({error.name}): pip install 'alula[otel]'.") from None
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # of a collector that does not answer
    provider = TracerProvider(shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    if clients:
        GrpcInstrumentorClient().instrument()  # type: ignore[no-untyped-call]
        ThreadingInstrumentor().instrument()

    def stop() -> None:
        flush = threading.Thread(target=provider.force_flush, daemon=True)  # whose own time limit is not kept
        flush.start()
        flush.join(_FLUSH_SECONDS)

    return stop


def _exporter(name: str) -> Any:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415

        return ConsoleSpanExporter(out=sys.stderr)
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), "http/protobuf")
    if name != "otlp" or protocol not in ("grpc", "http/protobuf"):
        raise UsageError(
            f"OTEL_TRACES_EXPORTER asks for {name!r} with the protocol {protocol!r}; there are otlp (grpc, "
            "http/protobuf), console and none."
        )
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        return OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http  # noqa: PLC0415

    return Http()


def _tracer() -> Any:
    """The tracer; None where nothing has imported OpenTelemetry."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import trace  # noqa: PLC0415

    return trace.get_tracer("alula")


def span(name: str, **attributes: Any) -> AbstractContextManager[Any]:
    """Trace a piece of work; yields the span, or None."""
    tracer = _tracer()
    if tracer is None:
        return nullcontext()
    given = {f"alula.{key}": value for key, value in attributes.items() if value is not None}
    return tracer.start_as_current_span(name, attributes=given)  # type: ignore[no-any-return]


@contextmanager
def server_span(service: str, method: str, metadata: Callable[[], Entries]) -> Iterator[Callable[..., None]]:
    """Trace a call of a client, as a part of the client's trace if it names one.

    Args:
        service: The service of gRPC.
        method: The method.
        metadata: Returns the client's metadata; called only if traces are on.

    Yields:
        A function that takes the call's attributes at its end, and ``failed``.
    """
    tracer = _tracer()
    if tracer is None:
        yield lambda **_: None
        return
    from opentelemetry import propagate  # noqa: PLC0415
    from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415

    carrier = {key: value for key, value in metadata() if key in _HEADERS and isinstance(value, str)}
    given = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    parent = propagate.extract(carrier)
    with tracer.start_as_current_span(
        f"{service}/{method}", context=parent, kind=SpanKind.SERVER, attributes=given, record_exception=False
    ) as current:

        def end(*, failed: bool = False, **attributes: Any) -> None:
            current.set_attributes({f"alula.{key}": value for key, value in attributes.items()})
            if failed:
                current.set_status(StatusCode.ERROR)

        yield end


def with_context(metadata: Entries) -> tuple[tuple[str, Any], ...]:
    """Metadata of a call, with the current span as parent for the called server."""
    entries = tuple(metadata)
    if _tracer() is None:
        return entries
    from opentelemetry import propagate, trace  # noqa: PLC0415

    if not trace.get_current_span().get_span_context().is_valid:
        return entries
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return (*(entry for entry in entries if entry[0] not in _HEADERS), *carrier.items())


@contextmanager
def traced_command(name: Callable[[], str]) -> Iterator[None]:
    """Trace a command of the command line, if the environment asks for it.

    Args:
        name: Returns the name of the span, such as ``alula load``.

    Raises:
        UsageError: As `start`.
    """
    if not is_wanted():
        yield
        return
    words = name()
    serves = words == "alula gateway"  # a span for each call of its clients, and none for its life
    stop = start("alula-gateway" if serves else "alula", clients=not serves)
    try:
        with nullcontext() if serves else span(words) as current:
            try:
                yield
            except SystemExit as end:
                if current is not None:
                    current.set_attribute("process.exit.code", end.code if isinstance(end.code, int) else 1)
                raise
    finally:
        stop()
