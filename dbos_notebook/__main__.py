"""``python -m dbos_notebook``."""

import sys

from dbos_notebook.server.cli import main

if __name__ == "__main__":
    sys.exit(main())
