"""``python -m codetape``."""

import sys

if sys.path and not sys.flags.safe_path:
    del sys.path[0]  # the present folder: what lies there is nobody's module

from codetape.cli import main

if __name__ == "__main__":
    main()
