"""The upstream's capabilities, probed once with the rights of the first client."""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Sequence

from alula.errors import ServerError
from alula.gateway.config import Options
from alula.gateway.logins import login_of
from alula.gateway.upstream import Caller
from alula.index_types import Capabilities, Probe
from alula.milvus import MissingRightsError, connect, probe

REFUSED_SECONDS = 600.0  # until a login may try again that lacks the rights
MAX_REFUSED = 4096


class CapabilityCache:
    """The capabilities of one upstream.

    Args:
        options: The gateway's options.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._capabilities: Capabilities | None = None
        self._refused: dict[bytes, tuple[float, str]] = {}

    def get(self, caller: Caller, asked: Sequence[Probe] = ()) -> Capabilities:
        """Return the capabilities; the first call probes them.

        Callers wait for a running probe only if they ask for what is not known: building an index may take a minute.

        Args:
            caller: The client's calls.
            asked: Further probes, see `IndexType.option_probes`.

        Raises:
            ServerError: If the upstream cannot be probed; a login that lacks the rights is refused for a while, since
                each attempt may leave a collection that it cannot drop.
        """
        if (known := self._knowing(asked)) is not None:
            return known
        with self._lock:
            if (known := self._knowing(asked)) is None:
                login = login_of(caller.metadata)
                until, reason = self._refused.get(login, (0.0, ""))
                if until > time.monotonic():
                    raise ServerError(reason)
                try:
                    known = self._capabilities = self._probed(caller, asked)
                except MissingRightsError as error:
                    if len(self._refused) >= MAX_REFUSED:
                        self._refused.clear()
                    self._refused[login] = (time.monotonic() + REFUSED_SECONDS, str(error))
                    raise
            return known

    def _knowing(self, asked: Sequence[Probe]) -> Capabilities | None:
        """The capabilities, if they answer what is asked."""
        known = self._capabilities
        return known if known is not None and all(map(known.knows, asked)) else None

    def _probed(self, caller: Caller, asked: Sequence[Probe]) -> Capabilities:
        options = self._options
        with connect(
            options.upstream,
            token=_token(caller),
            database=caller.database,
            ca_file=str(options.ca_file) if options.ca_file else None,
            server_name=options.server_name,
        ) as server:
            return probe(server, asked, known=self._capabilities)


def _token(caller: Caller) -> str:
    """The client's login in pymilvus's form: ``user:password`` or an API key."""
    given = next((value for key, value in caller.metadata if key == "authorization"), "")
    try:
        return base64.b64decode(given, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ServerError("The login of the call cannot be read; give user and password.") from None
