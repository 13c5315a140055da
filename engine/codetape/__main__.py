"""``python -m codetape``."""

from codetape.cli import main

if __name__ == "__main__":
    main()
