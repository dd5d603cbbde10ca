"""Run an application of the installed dbos on system databases: it migrates them.

Called as a program with their URLs.
"""

import sys

from dbos import DBOS, SetWorkflowID


def main(urls: list[str]) -> None:
    """Migrate each database, and run one workflow on it."""
    for url in urls:
        DBOS(
            config={
                "name": "upgraded",
                "system_database_url": url,
                "run_admin_server": False,
                "log_level": "ERROR",
            }
        )

        @DBOS.workflow()
        def hello(value: str) -> dict[str, str]:
            return {"got": value}

        DBOS.launch()
        with SetWorkflowID("after-upgrade"):
            hello("in")
        DBOS.destroy(destroy_registry=True)


if __name__ == "__main__":
    main(sys.argv[1:])
