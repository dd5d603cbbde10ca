"""Control of workflows: a plan, the call to DBOS, and a receipt.

Every change goes through ``DBOSClient``. This package never writes with SQL of its own.
"""

from dbos_notebook.imports import WholeImports

# What its modules import, so that no Ctrl-C leaves it halfway.
with WholeImports():
    import psycopg  # noqa: F401
    import sqlalchemy  # noqa: F401
