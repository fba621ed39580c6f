"""The upstream's capabilities, probed once with the rights of the first client."""

from __future__ import annotations

import base64
import binascii
import threading

from alula.errors import ServerError
from alula.gateway.config import Options
from alula.gateway.upstream import Caller
from alula.index_types import Capabilities
from alula.milvus import connect, probe


class CapabilityCache:
    """The capabilities of one upstream.

    Args:
        options: The gateway's options.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._capabilities: Capabilities | None = None

    def get(self, caller: Caller) -> Capabilities:
        """Return the capabilities; the first call probes them.

        Raises:
            ServerError: If the upstream cannot be probed.
        """
        with self._lock:
            if self._capabilities is None:
                options = self._options
                with connect(
                    options.upstream,
                    token=_token(caller),
                    database=caller.database,
                    ca_file=str(options.ca_file) if options.ca_file else None,
                    server_name=options.server_name,
                ) as server:
                    self._capabilities = probe(server)
            return self._capabilities


def _token(caller: Caller) -> str:
    """The client's login in pymilvus's form: ``user:password`` or an API key."""
    given = next((value for key, value in caller.metadata if key == "authorization"), "")
    try:
        return base64.b64decode(given, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ServerError("The login of the call cannot be read; give user and password.") from None
