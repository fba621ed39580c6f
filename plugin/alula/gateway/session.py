"""The context of a rewritten call: who calls, and the known collections, encoders and capabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alula.gateway.capability_cache import CapabilitiesOf
from alula.gateway.encoder_cache import Encoders
from alula.gateway.functions import EncoderOf
from alula.gateway.upstream import Caller
from alula.gateway.views import Known, View, Views


@dataclass(frozen=True)
class Session:
    """One rewritten call.

    Args:
        caller: The client.
        views: What is known of collections.
        encoders: The encoders.
        capabilities: What the upstream can do.
        fresh: Whether collections are to be looked at anew.
    """

    caller: Caller
    views: Views
    encoders: Encoders
    capabilities: CapabilitiesOf
    fresh: bool = False

    def database(self, request: Any) -> str:
        """The database that a request is about."""
        return getattr(request, "db_name", "") or self.caller.database

    def known(self, request: Any, *, fresh: bool = False) -> Known:
        """What there is to know of the collection that a request names."""
        database = self.database(request)
        return self.views.of(self.caller, database, request.collection_name, fresh=fresh or self.fresh)

    def view(self, request: Any, *, fresh: bool = False) -> View | None:
        """The view of the collection that a request names; None without an index type of Alula's."""
        return self.known(request, fresh=fresh).view

    def encoder_of(self, request: Any) -> EncoderOf:
        """Finds the encoders of the collection that a request names, by their fingerprints."""
        return lambda sha256: self.encoders.get(self.caller, self.database(request), sha256)

    def stale(self, request: Any) -> bool:
        """Whether the collection that a request names is not what it was taken for, which is now known."""
        name = getattr(request, "collection_name", "")
        if not name:
            return False
        database = self.database(request)
        before = self.views.known(database, name)
        now = self.views.of(self.caller, database, name, fresh=True)
        return before is not None and _what(before) != _what(now)


def _what(known: Known) -> Any:
    return known.view.settings if known.view else {}, known.functions
