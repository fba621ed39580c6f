"""What a load is: from where, to where and how, as its journal remembers it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Literal, get_args

from alula.errors import UsageError
from alula.ingest.bulk_import.choice import choose
from alula.ingest.bulk_import.sink import can_import
from alula.ingest.journal import Journal
from alula.ingest.target import Target
from alula.sources import Source

if TYPE_CHECKING:
    from alula.ingest.ray.engine import RayCluster

Mode = Literal["auto", "insert", "upsert"]
Via = Literal["auto", "insert", "import"]


def begin(
    journal: Journal,
    target: Target,
    source: Source,
    *,
    partition: str | None,
    mode: Mode,
    via: Via,
    stage: str | None,
    cluster: RayCluster | None,
) -> dict[str, Any]:
    """What is loaded, written down in a new journal or compared with what an old one says.

    Raises:
        UsageError: If it cannot be loaded so, or the journal is of another load.
    """
    for name, given, known in (("mode", mode, get_args(Mode)), ("via", via, get_args(Via))):
        if given not in known:  # rows would be doubled where "upsert" is misspelt
            raise UsageError(f"{name} is {given!r}, and must be one of {', '.join(known)}.")
    if cluster is not None:
        via = cluster.check(target, source, via)
    job: dict[str, Any] = {
        "server": target.server.uri,
        "collection": target.name,
        "partition": partition,
        "encoder": target.lowering.encoder.sha256,
        "source": source.name,
        "fingerprint": source.fingerprint,
        "engine": cluster.name if cluster else "local",  # each cuts a source in other places
    }
    if journal.job is None:
        before = target.count()
        if via == "auto":
            importable = stage is not None and can_import(target.server)
            via = choose(rows=source.rows, empty=before == 0, staged=stage is not None, importable=importable)
        if via == "import":
            _check_import(target, stage, mode)
        replace = mode == "upsert" or (mode == "auto" and before > 0)
        size = target.batch_rows
        job |= {"replace": replace, "batch_rows": size, "via": via, "stage": stage, "id": uuid.uuid4().hex[:12]}
        journal.begin(job, before)
        return job
    if via != "auto":
        job["via"] = via
    if stage is not None:
        job["stage"] = stage
    for name, now in job.items():
        then = journal.job[name]
        if then != now:
            what = "rows" if name == "fingerprint" else name
            raise UsageError(
                f"The journal {journal.path} is of a load with another {what}"
                + ("" if name in ("encoder", "fingerprint") else f" ({then}, and now {now})")
                + "; give the same as then, or --restart to forget that load."
            )
    return dict(journal.job)


def _check_import(target: Target, stage: str | None, mode: Mode) -> None:
    if target.server.embedded:
        raise UsageError("Milvus Lite has no bulk import; leave --via import out.")
    if stage is None:
        raise UsageError(
            "A bulk import needs a place that the server reads files from: --stage DIR or s3://BUCKET/PREFIX."
        )
    if mode == "upsert":
        raise UsageError("A bulk import cannot replace rows; leave --mode upsert or --via import out.")
