"""The server read without a gateway: shows which of both changed a row.

A gateway keeps no rows. Once the server itself has shown a row as it was last written, or shown it gone, only the
server can lose that again, as Milvus 2.3.5 does now and then when it is killed.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc
import tenacity
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from benchmarks.gateway.soak_model import CLIENTS, Model
from benchmarks.loading.checking import count

Failure = (MilvusException, grpc.RpcError)
READ_SECONDS = 20.0  # pymilvus asks again for so long
PATIENCE = 60.0  # seconds in which a server that was killed may still be reading its rows
LIMIT = 16_000


@dataclass
class Findings:
    """Rows that were not as they had been written, and stayed so.

    Args:
        servers: Rows that the server had shown as written and lost or brought back afterwards, by what happened; with
            them those that it lost at the same time before it had shown them.
        nobodys: All others, in words: whoever acknowledged them may be wrong.
        waited: Number of times that the server showed another state before the right one.
    """

    servers: Counter[str] = field(default_factory=Counter)
    nobodys: list[str] = field(default_factory=list)
    waited: int = 0


class Straight:
    """Rows of one client as the server shows them.

    Args:
        uri: The server.
        owner: The client.
    """

    def __init__(self, uri: str, owner: int) -> None:
        self.findings = Findings()
        self._uri = uri
        self._owner = owner
        self._client: MilvusClient | None = None

    def states(self, name: str, ids: Iterable[int] | None = None) -> dict[int, tuple[int, ...]]:
        """The versions of rows, strongly consistent; rows that are not there are left out.

        Args:
            name: The collection.
            ids: Which rows; all of the client's by default.

        Raises:
            MilvusException, grpc.RpcError: If the server does not answer.
        """
        found = defaultdict(list)
        filter = f"owner == {self._owner}" if ids is None else f"id in {sorted(ids)}"
        for row in self._query(name, filter):
            found[row["id"]].append(row["version"])
        return {id_: tuple(versions) for id_, versions in found.items()}

    def confirm(self, name: str, model: Model) -> None:
        """Check that the server shows all rows acknowledged since the last check."""
        with contextlib.suppress(*Failure):
            asked = model.unshown - model.doubtful.keys()
            if asked and not model.shown(asked, self.states(name, asked)):
                self.reconcile(name, model)

    def agrees(self, name: str, model: Model) -> bool:
        """True if the server agrees with the model.

        Raises:
            MilvusException, grpc.RpcError: If the server does not answer.
        """
        return not model.unlike(self.states(name))

    def reconcile(self, name: str, model: Model) -> None:
        """Wait for the server to agree with the model; a lasting difference is a finding.

        Raises:
            MilvusException, grpc.RpcError: If the server does not answer.
        """
        ends, waited = time.monotonic() + PATIENCE, 0
        while unlike := model.unlike(self.states(name)):
            if time.monotonic() > ends:
                self._removed(name, model, unlike)
                return
            waited = 1
            time.sleep(1)
        self.findings.waited += waited

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _removed(self, name: str, model: Model, unlike: Mapping[int, tuple[int, ...]]) -> None:
        # whoever has lost rows that were shown, or shows none of anybody's, has lost those of the last moment too
        loses = any(not there and id_ not in model.unshown for id_, there in unlike.items())
        loses = loses or not count(self._connected(), name)
        for id_, versions in unlike.items():
            what = _what(model, id_, versions)
            if id_ in model.unshown and not (loses and not versions):
                self.findings.nobodys.append(
                    f"{name}: row {id_} was never seen as acknowledged, and {what}: it has {versions}, and can have "
                    f"{model.possible(id_)}"
                )
            else:
                self.findings.servers[f"{name}: {what}"] += 1
        there = [id_ for id_, versions in unlike.items() if versions]
        if there:
            self._connected().delete(name, ids=there, retry_times=0)
        model.forget(unlike)

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(Failure),
        stop=tenacity.stop_after_attempt(2),  # Milvus Lite hangs up on those who say nothing for a while
        reraise=True,
    )
    def _query(self, name: str, filter: str) -> Sequence[Mapping[str, int]]:
        try:
            rows: Sequence[Mapping[str, int]] = self._connected().query(
                name,
                filter=filter,
                output_fields=["id", "version"],
                limit=LIMIT,
                consistency_level="Strong",
                timeout=READ_SECONDS,
            )
        except Failure:
            with contextlib.suppress(Exception):
                self.close()
            self._client = None
            raise
        return rows

    def _connected(self) -> MilvusClient:
        if self._client is None:
            self._client = MilvusClient(self._uri, timeout=5)
        return self._client


def straights(uri: str) -> list[Straight]:
    """One for each client."""
    return [Straight(uri, owner) for owner in range(CLIENTS)]


def _what(model: Model, id_: int, versions: tuple[int, ...]) -> str:
    if not versions:
        return "is lost"
    if len(versions) > 1:
        return "is there more than once"
    return "is there again" if model.possible(id_) == {None} else "is there in another version"
