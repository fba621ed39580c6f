"""A client of the soak: compares every answer with its own model of the rows."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from benchmarks.gateway.soak_model import (
    CLIENTS,
    DIM,
    FIELD,
    FIELDS,
    METRIC,
    Asked,
    Judged,
    Model,
    judge,
    row_of,
    vector_of,
)
from benchmarks.gateway.soak_straight import READ_SECONDS, Failure, Findings, Straight

MOST_ROWS = 1200  # of each client in each collection
LIMIT = 10
PAUSE = 0.2
ENCODER = "soak"  # the name under which it was pushed
EXAMPLES = 20


@dataclass(frozen=True)
class Refusal:
    """A call that failed, with the times between which it was under way."""

    what: str
    gateway: int
    began: float
    ended: float
    message: str


@dataclass
class Seen:
    """A client's results since the last report.

    Args:
        milliseconds: Of the calls that were answered, by operation.
        refusals: Calls that failed.
        wrong: Answers that were wrong, up to `EXAMPLES` of them in words, by operation.
        wrongs: Their number.
        servers: Answers that were not like the model, as the server's own were.
        passing: When answers were not like the model while the server's own were, and right when asked for again.
        recalls: Of the searches, by collection.
        judged: Answers that were compared.
        findings: States of the server itself.
    """

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refusals: list[Refusal] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    wrongs: int = 0
    servers: int = 0
    passing: list[tuple[float, str]] = field(default_factory=list)
    recalls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    judged: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)


@dataclass(frozen=True)
class Task:
    """The task of a client.

    Args:
        number: Which client it is.
        uris: The gateways.
        server: The server, to look at it without a gateway.
        collections: Names, and the index type of each.
        params: Search parameters, by index type.
        seed: Of all that it chooses.
    """

    number: int
    uris: Sequence[str]
    server: str
    collections: Mapping[str, str]
    params: Mapping[str, Mapping[str, Any]]
    seed: int


def work(task: Task, pipe: Connection, began: Any) -> None:
    """Write and read until the pipe says otherwise.

    ``"report"`` is answered with what was seen and the models, and then the models to go on with are awaited, or None,
    which ends the client.

    Args:
        task: The task.
        pipe: To whom to report.
        began: A shared number: start time of the running call, 0 between calls.
    """
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)  # it would print every failure
    client = Client(task, began)
    while True:
        if pipe.poll():
            assert pipe.recv() == "report"
            pipe.send((client.report(), client.models))
            models = pipe.recv()
            if models is None:
                return
            client.models = models
        client.step()
        time.sleep(client.pause())


def make(client: MilvusClient, name: str, index_type: str, *, at_once: bool = True) -> None:
    """Make a collection for the rows of the soak.

    Args:
        client: A client of a gateway.
        name: Its name.
        index_type: FLAT or one of Alula's.
        at_once: Say the index type with the collection, not with the index alone.
    """
    schema = client.create_schema()
    for column in ("id", "owner", "version"):
        schema.add_field(column, DataType.INT64, is_primary=column == "id")
    schema.add_field("text", DataType.VARCHAR, max_length=100)
    schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=DIM)
    custom = index_type != "FLAT"
    properties = {"alula.index_type": index_type, "alula.encoder": ENCODER} if custom and at_once else {}
    client.create_collection(
        name, schema=schema, properties=properties, consistency_level="Strong", timeout=READ_SECONDS
    )
    index = client.prepare_index_params()
    params = {"encoder": ENCODER} if custom and not at_once else {}
    index.add_index(FIELD, index_type=index_type, metric_type=METRIC, params=params)
    client.create_index(name, index, timeout=READ_SECONDS)
    client.load_collection(name, timeout=READ_SECONDS)


def search(
    client: MilvusClient, name: str, asked: Sequence[Asked], owner: int, params: Mapping[str, Any]
) -> Sequence[Any]:
    """Search for rows of one client; the queries differ in their vectors alone."""
    return client.search(
        name,
        [one.query.tolist() for one in asked],
        anns_field=FIELD,
        limit=asked[0].limit,
        filter=asked[0].filter(owner),
        output_fields=list(FIELDS),
        search_params={"metric_type": METRIC, "params": dict(params)},
        consistency_level="Strong" if asked[0].strong else "Eventually",
        timeout=READ_SECONDS,
    )


class Client:
    """One client: its connections, and its models of the collections.

    Args:
        task: The task.
        began: A shared number: when the call that is under way began.
    """

    def __init__(self, task: Task, began: Any) -> None:
        self.seen = Seen()
        self.models = {name: Model() for name in task.collections}
        self._task = task
        self._began = began
        self._random = random.Random(task.seed * 1000 + task.number)
        self._clients: dict[int, MilvusClient] = {}
        self._straight = Straight(task.server, task.number)
        self._next = task.number + CLIENTS
        self._version = 0
        self._steps: list[tuple[Callable[[str, Model], None], float]] = [
            (self._insert, 2),
            (self._upsert, 2),
            (self._delete, 1),
            (self._query, 2),
            (self._ask_count, 1),
            (self._search_strong, 3),
            (self._search_eventual, 6),
            (self._make_anew, 0.3),
        ]

    def step(self) -> None:
        """Do one thing to one collection."""
        name = self._random.choice(list(self._task.collections))
        (step,) = self._random.choices(*zip(*self._steps, strict=True))
        step(name, self.models[name])
        self._straight.confirm(name, self.models[name])

    def pause(self) -> float:
        """Seconds until the next step, which leave processor time to the server."""
        return self._random.uniform(0, PAUSE)

    def report(self) -> Seen:
        """The results since the last report."""
        seen, self.seen = self.seen, Seen()
        seen.findings, self._straight.findings = self._straight.findings, Findings()
        return seen

    def _call(self, what: str, call: Callable[[MilvusClient], Any]) -> Any:
        """The answer of any gateway, or None if there was none."""
        gateway = self._random.randrange(len(self._task.uris))
        began = time.time()
        self._began.value = began
        try:
            if gateway not in self._clients:
                self._clients[gateway] = MilvusClient(self._task.uris[gateway], timeout=5)
            answer = call(self._clients[gateway])
        except Failure as error:
            self.seen.refusals.append(Refusal(what, gateway, began, time.time(), _words(error)))
            client = self._clients.pop(gateway, None)
            if client is not None:
                with contextlib.suppress(Exception):
                    client.close()
            time.sleep(self._random.uniform(0.1, 1.0))
            return None
        finally:
            self._began.value = 0.0
        self.seen.milliseconds[what].append((time.time() - began) * 1e3)
        return answer

    def _write(
        self, what: str, model: Model, ids: Sequence[int], version: int | None, send: Callable[[MilvusClient], Any]
    ) -> None:
        model.begin(ids, version)
        answer = self._call(what, send)
        if answer is not None:
            model.acknowledged(ids, version)
            # Milvus Lite names the rows that it deletes
            listed = isinstance(answer, list)
            counts = [len(answer)] if listed else [value for key, value in answer.items() if key.endswith("_count")]
            fine = counts == [len(ids)]
            self._count(what, Judged([] if fine else [f"{len(ids)} rows were sent, and {counts} answered for"]))

    def _read(
        self,
        what: str,
        name: str,
        model: Model,
        call: Callable[[MilvusClient], Any],
        judged: Callable[[Any], Judged],
    ) -> None:
        """Ask, and compare the answer; one that is not like the model is looked into."""
        began = time.time()
        answer = self._call(what, call)
        if answer is None:
            return
        first = judged(answer)
        self._count(what, first)
        if not first.unlike:
            self._recalled(name, first)
            return
        # the server itself may have lost what it had shown, or may still be reading its rows
        try:
            servers = not self._straight.agrees(name, model)
            if servers:
                self._straight.reconcile(name, model)
            answer = self._call(what, call)
        except Failure:
            answer = None
        second = Judged() if answer is None else judged(answer)
        if second.unlike:
            self._wrong(what, second.unlike)
        elif answer is not None and servers:
            self.seen.servers += 1
        else:
            self.seen.passing.append((began, f"{what}: {first.unlike[0]}"))

    def _insert(self, name: str, model: Model) -> None:
        if len(model.certain) + len(model.doubtful) > MOST_ROWS:
            self._delete(name, model)
            return
        count = self._random.choice([1, 30, 60, 120])
        ids = [self._next + CLIENTS * i for i in range(count)]
        self._next += CLIENTS * count
        version = self._new_version()
        rows = [row_of(id_, version) for id_ in ids]
        # no timeout, since pymilvus would take it for the time in which to send an insert again
        self._write(f"insert, {name}", model, ids, version, lambda client: client.insert(name, rows, retry_times=0))

    def _upsert(self, name: str, model: Model) -> None:
        ids, version = self._some(model, self._random.choice([1, 40])), self._new_version()
        if ids:
            rows = [row_of(id_, version) for id_ in ids]
            self._write(f"upsert, {name}", model, ids, version, lambda client: client.upsert(name, rows, retry_times=0))

    def _delete(self, name: str, model: Model) -> None:
        ids = self._some(model, self._random.choice([1, 20, 60]))
        if ids:
            self._write(f"delete, {name}", model, ids, None, lambda client: client.delete(name, ids=ids, retry_times=0))

    def _query(self, name: str, model: Model) -> None:
        what = f"query, {name}"
        ids = self._some(model, 10) + self._random.sample(list(model.written), min(10, len(model.written)))
        if not ids:
            return

        def judged(rows: Any) -> Judged:
            states: dict[int, list[int]] = defaultdict(list)
            wrong = []
            for row in rows:
                states[row["id"]].append(row["version"])
                wanted = row_of(row["id"], row["version"])
                same = np.array_equal(np.asarray(row[FIELD], np.float32), vector_of(row["id"], row["version"]))
                if not same or any(row[key] != wanted[key] for key in FIELDS):
                    wrong.append(f"row {row['id']} of version {row['version']} has other fields: {row}")
            unlike = [
                f"row {id_} is shown in versions {states.get(id_, [])}, and can have {model.possible(id_)}"
                for id_ in set(ids) | set(states)
                if len(states.get(id_, ())) > 1 or next(iter(states.get(id_, ())), None) not in model.possible(id_)
            ]
            return Judged(wrong, unlike)

        def call(client: MilvusClient) -> Any:
            return client.query(
                name,
                filter=f"id in {sorted(set(ids))}",
                output_fields=[*FIELDS, FIELD],
                consistency_level="Strong",
                timeout=READ_SECONDS,
            )

        self._read(what, name, model, call, judged)

    def _ask_count(self, name: str, model: Model) -> None:
        def judged(rows: Any) -> Judged:
            there, least = rows[0]["count(*)"], len(model.certain)
            most = least + len(model.doubtful)
            fine = least <= there <= most
            return Judged(unlike=[] if fine else [f"{there} rows are counted, not {least} to {most}"])

        def call(client: MilvusClient) -> Any:
            return client.query(
                name,
                filter=f"owner == {self._task.number}",
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=READ_SECONDS,
            )

        self._read(f"count, {name}", name, model, call, judged)

    def _search_strong(self, name: str, model: Model) -> None:
        self._search(name, model, strong=True)

    def _search_eventual(self, name: str, model: Model) -> None:
        self._search(name, model, strong=False)

    def _search(self, name: str, model: Model, *, strong: bool) -> None:
        what = f"search{', strong' if strong else ''}, {name}"
        count, even = self._random.choice([1, 1, 4]), self._random.random() < 0.3
        seed = self._random.randrange(1 << 30)
        queries = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
        asked = [Asked(query, LIMIT, even, strong) for query in queries]
        params = self._task.params.get(self._task.collections[name], {})
        owner = self._task.number

        def judged(answers: Any) -> Judged:
            if len(answers) != count:
                return Judged([f"{len(answers)} answers to {count} queries"])
            each = [judge(one, hits, model, owner) for one, hits in zip(asked, answers, strict=True)]
            recalls = [one.recall for one in each if one.recall is not None]
            return Judged(
                [words for one in each for words in one.wrong],
                [words for one in each for words in one.unlike],
                float(np.mean(recalls)) if recalls else None,
            )

        self._read(what, name, model, lambda client: search(client, name, asked, owner, params), judged)

    def _make_anew(self, name: str, model: Model) -> None:
        """Drop and recreate the client's own collection, write and search."""
        del name, model
        name, own = f"own_{self._task.number}", Model()
        ids, version = [self._task.number + CLIENTS * i for i in range(1, 30)], self._new_version()
        kind = self._random.choice(list(self._task.collections.values()))
        at_once = self._random.random() < 0.5
        asked = Asked(vector_of(0, version), LIMIT, even=False, strong=True)
        params = {"candidates": len(ids)} if kind != "FLAT" else {}
        own.begin(ids, version)
        own.acknowledged(ids, version)
        steps: list[tuple[str, Callable[[MilvusClient], Any]]] = [
            ("drop", lambda client: [client.drop_collection(name, timeout=READ_SECONDS)]),
            (f"make {kind}", lambda client: [make(client, name, kind, at_once=at_once)]),
            ("insert", lambda client: client.insert(name, [row_of(id_, version) for id_ in ids], retry_times=0)),
        ]
        for what, call in steps:
            if self._call(f"{what}, recreated", call) is None:
                return
        self._straight.confirm(name, own)

        def judged(answers: Any) -> Judged:
            one = judge(asked, answers[0], own, self._task.number)
            # all rows are candidates, but for those that share no dimension with a query of FLOPS_SPARSE
            fine = one.recall in (1, None) or kind == "FLOPS_SPARSE"
            missed = [] if fine else [f"the recall is {one.recall}, of {len(answers[0])} results"]
            return Judged(one.wrong, [*one.unlike, *missed])

        self._read(
            "search, recreated",
            name,
            own,
            lambda client: search(client, name, [asked], self._task.number, params),
            judged,
        )

    def _count(self, what: str, judged: Judged) -> None:
        """One answer more that was compared."""
        self.seen.judged[what] += 1
        self._wrong(what, judged.wrong)

    def _wrong(self, what: str, wrong: Sequence[str]) -> None:
        self.seen.wrongs += len(wrong)
        self.seen.wrong += [f"{time.time():.1f} {what}: {words}" for words in wrong][
            : max(0, EXAMPLES - len(self.seen.wrong))
        ]

    def _recalled(self, name: str, judged: Judged) -> None:
        if judged.recall is not None:
            self.seen.recalls[name].append(judged.recall)

    def _some(self, model: Model, count: int) -> list[int]:
        """Some rows that are certainly there."""
        return self._random.sample(list(model.certain), min(count, len(model.certain)))

    def _new_version(self) -> int:
        self._version += 1
        return self._version


def _words(error: BaseException) -> str:
    code = getattr(error, "code", "")
    return f"{type(error).__name__} {code() if callable(code) else code}: {error}"[:400]
