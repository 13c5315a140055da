"""``python -m codetape``."""

from codetape.cli import main

main()
