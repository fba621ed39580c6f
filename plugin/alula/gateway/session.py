"""The context of a rewritten call: the client and the gateway's caches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alula.gateway.capability_cache import CapabilityCache
from alula.gateway.encoder_cache import Encoders
from alula.gateway.functions import EncoderOf
from alula.gateway.policy import Policy
from alula.gateway.upstream import Caller
from alula.gateway.views import CollectionInfo, View, Views


@dataclass(frozen=True)
class Session:
    """One rewritten call.

    Args:
        caller: The client.
        views: The cache of collection descriptions.
        encoders: The cache of encoders.
        capabilities: The cache of the upstream's capabilities.
        policy: The gateway's policy.
        fresh: True to read every collection from Milvus instead of from the cache.
    """

    caller: Caller
    views: Views
    encoders: Encoders
    capabilities: CapabilityCache
    policy: Policy
    fresh: bool = False

    def database(self, request: Any) -> str:
        """The database that a request or its metadata name, "" for the default one."""
        return getattr(request, "db_name", "") or self.caller.database

    def info(self, request: Any, *, fresh: bool = False) -> CollectionInfo:
        """Describe the collection that a request names."""
        database = self.database(request)
        return self.views.read(self.caller, database, request.collection_name, fresh=fresh or self.fresh)

    def view(self, request: Any, *, fresh: bool = False) -> View | None:
        """The view of the collection that a request names; None without an index type."""
        return self.info(request, fresh=fresh).view

    def encoder_of(self, request: Any) -> EncoderOf:
        """A function that loads encoders of the request's database by fingerprint."""
        return lambda sha256: self.encoders.get(self.caller, self.database(request), sha256)

    def stale(self, request: Any) -> bool:
        """Read a request's collection again; True if its cached description is wrong."""
        name = getattr(request, "collection_name", "")
        if not name:
            return False
        database = self.database(request)
        before = self.views.cached(database, name)
        now = self.views.read(self.caller, database, name, fresh=True)
        return before is not None and _identity(before) != _identity(now)


def _identity(info: CollectionInfo) -> tuple[Any, ...]:
    return info.name, info.view.settings if info.view else {}, info.functions
