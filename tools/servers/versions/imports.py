"""Bulk import, as Milvus 2.4 and later answer about it."""

from __future__ import annotations

import re
from typing import Any

from tools.servers.versions.rule import Call, RefusedError, Rule

IMPORT_FAILED = 2100
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


class ForgottenImports(Rule):
    """An import that the server has forgotten is an error with its own code."""

    since = "2.4.0"
    source = "milvus internal/datacoord/services.go GetImportProgress"
    methods = ("GetImportState",)

    def answer(self, call: Call, response: Any) -> None:
        """See `Rule.answer`."""
        if re.search("key not found", response.status.reason):
            raise RefusedError(IMPORT_FAILED, f"import job does not exist, jobID={call.request.task}")
