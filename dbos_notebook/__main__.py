"""``python -m dbos_notebook``: hand the command line on to the subcommand that it names."""

import sys

from dbos_notebook.demo.cli import main

if __name__ == "__main__":
    sys.exit(main())
