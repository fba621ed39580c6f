"""``python -m alula``."""

from alula.cli import main

main()
