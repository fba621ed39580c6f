"""A cache of the rankings that search iterators page through, for a minute."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from pymilvus.grpc_gen import milvus_pb2

from alula.gateway.declaration import flat
from alula.gateway.search_params import SearchParams
from alula.gateway.session import Session
from alula.gateway.upstream import pairs, refill
from alula.gateway.views import View
from alula.search import RankedIds

ITERATORS, ITERATOR_SECONDS = 64, 60.0
_PROGRESS = ("topk", "limit", "search_iter_batch_size", "search_iter_last_bound", "search_iter_id")
# Later pages name the time of the first, which the gateway reads from its level
_CONSISTENCY = ("guarantee_timestamp", "consistency_level", "use_default_consistency")


class IteratorCache:
    """Rankings by the identity of their iterator; the least recently used goes first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[float, list[RankedIds]]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, identity: bytes, search: Callable[[], list[RankedIds]]) -> list[RankedIds]:
        """The ranking of an iterator, by a search if it is not cached."""
        with self._lock:
            found = self._kept.get(identity)
        if found is None or time.monotonic() - found[0] > ITERATOR_SECONDS:
            found = (time.monotonic(), search())
        with self._lock:
            self._kept[identity] = (time.monotonic(), found[1])
            self._kept.move_to_end(identity)
            while len(self._kept) > ITERATORS:
                self._kept.popitem(last=False)
        return found[1]


def iterator_identity(session: Session, view: View, request: Any, params: SearchParams) -> bytes:
    """Hash the token, the request without its progress, and the login of an iterator."""
    own = milvus_pb2.SearchRequest()
    own.CopyFrom(request)
    for name in _CONSISTENCY:
        own.ClearField(name)
    given = flat(own.search_params)
    for name in (*_PROGRESS, "params", "guarantee_timestamp"):
        given.pop(name, None)
    refill(own.search_params, pairs(sorted(given.items())))
    login = [value for key, value in session.caller.metadata if key in ("authorization", "dbname")]
    others = repr((params.iterator_id, login, sorted(view.settings.items())))
    return hashlib.sha256(own.SerializeToString(deterministic=True) + others.encode()).digest()
