"""``python -m vidal``."""

from vidal.commands import main

main()
