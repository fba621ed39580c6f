"""Bulk import, as Milvus 2.4 and later answer about it."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.message import Message

from tools.servers.versions.rule import Call, RefusedError, Rule, Version, parse

IMPORT_FAILED = 2100
MAX_KEY = 256  # bytes
_KEPT = ("failed_reason", "progress_percent")


class ImportsWithoutNames(Rule):
    """Imports have no ids and no files, and only those asked for by id have rows."""

    since = "2.4.0"
    source = "milvus internal/proxy/impl.go convertToV1ListImportResponse, convertToV1GetImportResponse"
    methods = ("ListImportTasks", "GetImportState")

    def answer(self, call: Call, response: Any) -> None:
        """See `Rule.answer`."""
        tasks = response.tasks if call.method == "ListImportTasks" else [response]
        for task in tasks:
            kept = [(pair.key, pair.value) for pair in task.infos if pair.key in _KEPT]
            task.id = task.collection_id = 0
            for name in ("infos", "segment_ids", "id_list"):
                task.ClearField(name)
            for key, value in kept:
                task.infos.add(key=key, value=value)
            if call.method == "ListImportTasks":
                task.row_count = 0


class RepeatedImports(Rule):
    """A repeated request for an import, with the same key, gets the first one's job.

    Attributes:
        repeated: Requests that got the job of an earlier one.
    """

    since = "2.6.24"
    source = "milvus-docs idempotent-requests.md; milvus pull requests 53236 (2.6) and 53228 (3.0)"
    methods = ("Import",)

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self.repeated = 0
        self._jobs: dict[tuple[Any, ...], Any] = {}

    @classmethod
    def applies(cls, version: Version) -> bool:
        """See `Rule.applies`."""
        return super().applies(version) and not parse("3.0.0") <= version < parse("3.0.2")

    def ask(self, call: Call) -> Message | None:
        """See `Rule.ask`."""
        key = str(call.metadata.get("idempotency-key", ""))
        if len(key) > MAX_KEY or not key.isascii() or not key.isprintable():
            raise RefusedError(1100, "invalid idempotency key")
        first: Message | None = self._jobs.get((call.name, key)) if key else None
        self.repeated += first is not None
        return first

    def answer(self, call: Call, response: Any) -> None:
        """See `Rule.answer`."""
        if key := call.metadata.get("idempotency-key"):
            self._jobs[call.name, key] = response


class ForgottenImports(Rule):
    """An import that the server has forgotten is an error with its own code."""

    since = "2.4.0"
    source = "milvus internal/datacoord/services.go GetImportProgress"
    methods = ("GetImportState",)

    def answer(self, call: Call, response: Any) -> None:
        """See `Rule.answer`."""
        if re.search("key not found", response.status.reason):
            raise RefusedError(IMPORT_FAILED, f"import job does not exist, jobID={call.request.task}")
