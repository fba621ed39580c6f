"""The plan of a load, as its journal records it."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from alula.errors import UsageError
from alula.ingest.bulk_import.choice import choose
from alula.ingest.bulk_import.tasks import can_import
from alula.ingest.journal import Journal
from alula.ingest.pipeline import Engine, Via
from alula.ingest.target import Target
from alula.sources import Source

Mode = Literal["auto", "insert", "upsert"]
_RANDOM = "id"  # differs in every plan
_UNSHOWN = ("encoder", "fingerprint", "identity")  # hashes and numbers, which say nothing to a user
_LABELS = {"fingerprint": "rows", "identity": "collection of that name: it was dropped and created again"}


@dataclass(frozen=True)
class LoadPlan:
    """A load: from where, to where and how.

    Args:
        server: Address of the server.
        collection: The collection.
        partition: Partition to write to; the default one if None.
        encoder: Fingerprint of the encoder.
        source: Name of the source.
        fingerprint: Fingerprint of the source's content.
        engine: The engine; each cuts a source in other places.
        replace: True if rows may be in the collection already: then they are upserted.
        batch_rows: Rows in a batch.
        via: ``insert`` or ``import``.
        stage: URL of the staging area of a bulk import.
        id: Random name of the load.
        identity: The server's number of the collection; another one after it was dropped and created again. "" where
            the server has none.
    """

    server: str
    collection: str
    partition: str | None
    encoder: str
    source: str
    fingerprint: str
    engine: str
    replace: bool
    batch_rows: int
    via: str
    stage: str | None
    id: str
    identity: str = ""

    def to_json(self) -> dict[str, Any]:
        """The plan as the journal keeps it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LoadPlan:
        """A plan as `to_json` gave it, or as an earlier version did."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def differs_from(self, other: LoadPlan) -> str | None:
        """Name of the first field that shows another load; None for the same one.

        A plan without an identity, of a server without one or of an earlier version, agrees with every identity.
        """
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if field.name == "identity" and not (mine and theirs):
                continue
            if field.name == "fingerprint" and not (":" in mine and ":" in theirs):
                mine, theirs = mine.partition(":")[0], theirs.partition(":")[0]  # of a version without content
            if field.name != _RANDOM and mine != theirs:
                return field.name
        return None


def plan_load(
    journal: Journal,
    target: Target,
    source: Source,
    *,
    partition: str | None,
    mode: Mode,
    via: Via,
    stage: str | None,
    engine: Engine,
) -> LoadPlan:
    """Record the plan of a load in a new journal, or resume that of an old one.

    Raises:
        UsageError: If the load is impossible, or the journal is of another load.
    """
    for name, given, known in (("mode", mode, get_args(Mode)), ("via", via, get_args(Via))):
        if given not in known:  # rows would be doubled where "upsert" is misspelt
            raise UsageError(f"{name} is {given!r}, and must be one of {', '.join(known)}.")
    via = engine.check(target, source, via)
    if journal.plan is not None:
        plan = _resumed(journal, target, source, partition=partition, via=via, stage=stage, engine=engine)
        _check_rows(journal, target, plan)
        return plan
    before = target.count()
    if via == "auto":
        importable = stage is not None and can_import(target.server)
        via = choose(rows=source.rows, empty=before == 0, staged=stage is not None, importable=importable)
    if via == "import":
        _check_import(target, stage, mode)
    plan = LoadPlan(
        server=target.server.uri,
        collection=target.name,
        partition=partition,
        encoder=target.lowering.encoder.sha256,
        source=source.name,
        fingerprint=source.fingerprint,
        engine=engine.name,
        replace=mode == "upsert" or (mode == "auto" and before > 0),
        batch_rows=target.batch_rows,
        via=via,
        stage=stage,
        id=uuid.uuid4().hex[:12],
        identity=target.identity(),
    )
    journal.begin(plan.to_json(), before)
    return plan


def _resumed(
    journal: Journal,
    target: Target,
    source: Source,
    *,
    partition: str | None,
    via: Via,
    stage: str | None,
    engine: Engine,
) -> LoadPlan:
    recorded = LoadPlan.from_json(journal.plan or {})
    now = dataclasses.replace(
        recorded,
        server=target.server.uri,
        collection=target.name,
        partition=partition,
        encoder=target.lowering.encoder.sha256,
        source=source.name,
        fingerprint=source.fingerprint,
        engine=engine.name,
        via=recorded.via if via == "auto" else via,
        stage=stage or recorded.stage,
        identity=target.identity(),
    )
    differing = recorded.differs_from(now)
    if differing is not None:
        values = (
            "" if differing in _UNSHOWN else f" ({getattr(recorded, differing)}, and now {getattr(now, differing)})"
        )
        raise UsageError(
            f"The journal {journal.path} is of a load with another {_LABELS.get(differing, differing)}{values}; "
            "resume it with the same, or restart."
        )
    return recorded


def _check_rows(journal: Journal, target: Target, plan: LoadPlan) -> None:
    """Raise a `UsageError` if acknowledged rows are gone, without an identity."""
    acknowledged = journal.done_rows - journal.dead_count
    if not plan.identity and plan.via == "insert" and target.count() < acknowledged:
        raise UsageError(
            f"The journal {journal.path} records {acknowledged:,} acknowledged rows, and {target.name!r} contains "
            f"{target.count():,}: it was dropped and created again, or rows were deleted; restart the load."
        )


def _check_import(target: Target, stage: str | None, mode: Mode) -> None:
    if not target.server.dialect.bulk_import:
        raise UsageError('Milvus Lite has no bulk import; load with via="insert".')
    if stage is None:
        raise UsageError(
            "A bulk import needs a place that the server reads files from: stage=DIR or stage=s3://BUCKET/PREFIX."
        )
    if mode == "upsert":
        raise UsageError('A bulk import cannot replace rows; leave mode="upsert" or via="import" out.')
