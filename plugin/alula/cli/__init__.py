"""The ``alula`` command."""

from alula.cli.main import main

__all__ = ["main"]
