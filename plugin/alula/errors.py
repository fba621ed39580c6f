"""The errors that Alula raises: sentences with the fault, its place and a remedy.

A message names arguments as Python spells them: ``layout="hamming"``, ``keep_vectors=False``, ``queries=...``. The
command line and the gateway show it in the words of their users, by `respell`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# neither inside quotes nor a comparison, as filters in messages have them
_ARGUMENT = re.compile(
    r"""(?<![\w'".=-])(?P<name>[a-z][a-z0-9_]*)=(?!=)(?P<value>"[^"]*"|'[^']*'|\.\.\.|[\w/:-]+(?:\.\w+)*)"""
)


class AlulaError(Exception):
    """A failure outside the program: a file, a server, the data. Exit code 1."""

    exit_code = 1


class UsageError(AlulaError):
    """A wrong call: an option, a name, a limit. Exit code 2."""

    exit_code = 2


class LoadInterrupted(AlulaError):
    """The user stopped a load. The message says how to resume it."""

    exit_code = 130


class EncoderError(AlulaError):
    """An encoder file is unreadable, or it is not the collection's encoder."""


class DataError(AlulaError):
    """Unusable rows, queries or vectors: wrong dimension, NaN, missing column."""


class ServerError(AlulaError):
    """Milvus could not be reached, or rejected the request."""


class UnsupportedError(AlulaError):
    """The server cannot hold this index type; the message names an alternative."""


Unsupported = UnsupportedError  # its name in 0.1, for one release


def respell(message: str, spell: Callable[[str, str], str | None]) -> str:
    """Replace the Python arguments in a message.

    Args:
        message: The message of an error.
        spell: Gets an argument's name and value as written, quotes included; ``...`` is any value. It returns the
            replacement, or None to keep the argument as it is.
    """
    return _ARGUMENT.sub(lambda match: spell(match["name"], match["value"]) or match[0], message)
