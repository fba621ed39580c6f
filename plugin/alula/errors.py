"""The errors that Alula raises on purpose: sentences that say what was wrong, where, and what to do."""


class AlulaError(Exception):
    """Something outside the program failed: a file, a server, the data. The command line exits with 1."""

    exit_code = 1


class UsageError(AlulaError):
    """The call itself is wrong: an option, a name, a limit. The command line exits with 2."""

    exit_code = 2


class LoadInterrupted(AlulaError):
    """The user stopped a load; the message says how far it came and how to go on."""

    exit_code = 130


class EncoderError(AlulaError):
    """An encoder file cannot be read, breaks the contract, or is not the one a collection was made with."""


class DataError(AlulaError):
    """A row, a query or a file of vectors cannot be used: wrong dimension, NaN, truncated, missing column."""


class ServerError(AlulaError):
    """Milvus could not be reached, or refused what was asked of it."""


class UnsupportedError(AlulaError):
    """The server cannot hold or run this index type; the message says what would."""


Unsupported = UnsupportedError  # its name in 0.1, for one release
