"""``python -m vidal``."""

from vidal.cli import main

main()
