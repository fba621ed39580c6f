"""Refusals of Milvus 2.4 and later: rate limits, rights, older schemas."""

from __future__ import annotations

import base64
import binascii
import time

from pymilvus.grpc_gen import common_pb2, milvus_pb2

from tools.servers.versions.rule import Call, DeniedError, RefusedError, Rule, Version


class FlushRate(Rule):
    """A collection is flushed once in ten seconds; a flush before is refused.

    Attributes:
        fewest: Refusals of each second flush, however late it comes: on a busy machine it may be late.
        refused: Refusals until now.
    """

    since = "2.4.5"
    source = "milvus pkg/util/ratelimitutil Limiter.AllowN; milvus.yaml quotaAndLimits.flushRate.collection.max: 0.1"
    methods = ("Flush",)
    seconds = 10.0
    fewest = 0

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        # of the last flush, by the collection's number: its time, and the refusals since
        self._flushed: dict[int | str, tuple[float, int]] = {}
        self.refused = 0

    def ask(self, call: Call) -> None:
        """See `Rule.ask`; collections keep their number when they are renamed."""
        for name in call.request.collection_names:
            request = milvus_pb2.DescribeCollectionRequest(db_name=call.name[0], collection_name=name)
            number = call.send("DescribeCollection", request).collectionID or name  # Milvus Lite has no numbers
            flushed, refusals = self._flushed.get(number, (-self.seconds, self.fewest))
            if time.monotonic() - flushed < self.seconds or refusals < self.fewest:
                self.refused += 1
                self._flushed[number] = flushed, refusals + 1
                raise RefusedError(
                    8,
                    "request is rejected by grpc RateLimiter middleware, please retry later: "
                    "rate limit exceeded[rate=0.1]",
                    common_pb2.ErrorCode.RateLimit,
                )
            self._flushed[number] = time.monotonic(), 0


class Rights(Rule):
    """A login without a right gets a gRPC status; `deny` takes rights away."""

    since = "2.4.0"
    source = "milvus internal/proxy/privilege_interceptor.go PrivilegeInterceptor"
    methods = (
        "CreateCollection",
        "DropCollection",
        "DescribeCollection",
        "CreateIndex",
        "DescribeIndex",
        "LoadCollection",
        "Insert",
        "Upsert",
        "Delete",
        "Query",
        "Search",
        "HybridSearch",
        "Flush",
    )

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self._denied: dict[str, set[str]] = {}

    def deny(self, user: str, *methods: str) -> None:
        """Take a user the right to call some methods."""
        self._denied.setdefault(user, set()).update(methods)

    def ask(self, call: Call) -> None:
        """See `Rule.ask`; the engine has no users, so a password is not looked at."""
        try:
            login = base64.b64decode(str(call.metadata.get("authorization", ""))).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        user = login.partition(":")[0]
        if call.method in self._denied.get(user, ()):
            raise DeniedError(f"Privilege{call.method}: permission deny to {user} in the `default` database")


class SchemaMismatch(Rule):
    """A write is refused while a proxy has an older schema, as a field is added."""

    since = "2.5.0"
    source = "milvus pkg/util/merr ErrCollectionSchemaMismatch; internal/proxy/task_insert.go"
    methods = ("Insert", "Upsert")

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self.left = 0  # writes to refuse

    def ask(self, call: Call) -> None:
        """See `Rule.ask`."""
        if self.left:
            self.left -= 1
            raise RefusedError(109, f"collection schema mismatch[collection={call.request.collection_name}]")
