"""``python -m alula.cli``."""

from alula.cli import main

main()
