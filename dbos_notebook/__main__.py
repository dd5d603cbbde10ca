"""``python -m dbos_notebook``."""

import sys

from dbos_notebook.cli import main

if __name__ == "__main__":
    sys.exit(main())
