"""Control of workflows: a plan, the call to DBOS, and a receipt.

Every change goes through ``DBOSClient``. This package never writes with SQL of its own.
"""
