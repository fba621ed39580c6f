"""What the upstream can do, asked once, with the rights of the client that first needs to know."""

from __future__ import annotations

import base64
import binascii
import threading

from alula.errors import ServerError
from alula.gateway.config import Options
from alula.gateway.upstream import Caller
from alula.index_types import Capabilities
from alula.milvus import connect, probe


class CapabilitiesOf:
    """The upstream's capabilities.

    Args:
        options: The gateway's.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._found: Capabilities | None = None

    def get(self, caller: Caller) -> Capabilities:
        """What the upstream can do.

        Raises:
            ServerError: If it cannot be asked.
        """
        with self._lock:
            if self._found is None:
                options = self._options
                with connect(
                    options.upstream,
                    token=_token(caller),
                    database=caller.database,
                    ca_file=str(options.ca_file) if options.ca_file else None,
                    server_name=options.server_name,
                ) as server:
                    self._found = probe(server)
            return self._found


def _token(caller: Caller) -> str:
    """The client's login as pymilvus takes it: ``user:password`` or an API key."""
    given = next((value for key, value in caller.metadata if key == "authorization"), "")
    try:
        return base64.b64decode(given, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ServerError("The login that came with the call cannot be read; give user and password.") from None
