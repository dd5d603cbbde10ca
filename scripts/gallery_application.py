"""A DBOS application whose runs are in the gallery; ``gallery.py`` starts it.

A tenth of a second stands for a minute of a real application.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time

from dbos import DBOS, DBOSConfig, SetWorkflowID

QUEUE = "work"
CHILDREN = 400


class RowError(Exception):
    """A row of the import is invalid."""


class CourierError(Exception):
    """No courier is available."""


@DBOS.step()
async def fetch(source: str, seconds: float) -> str:
    """Fetch a source."""
    await asyncio.sleep(seconds)
    return source


@DBOS.step()
async def clean(source: str, seconds: float) -> str:
    """Clean a fetched source."""
    await asyncio.sleep(seconds)
    return source


@DBOS.step()
async def write(name: str, seconds: float) -> str:
    """Write one part of the report."""
    await asyncio.sleep(seconds)
    return name


@DBOS.workflow()
async def build_report() -> int:
    """Fetch eight sources concurrently, clean six of them concurrently, and write the report."""
    await write("settings", 0.05)
    sources = ["orders", "stock", "returns", "prices", "clicks", "mails", "shops", "rates"]
    await asyncio.gather(*(fetch(name, 0.1 + 0.06 * n) for n, name in enumerate(sources)))
    await asyncio.gather(*(clean(name, 0.1 + 0.04 * n) for n, name in enumerate(sources[:6])))
    await DBOS.sleep_async(0.2)
    for part, seconds in (("tables", 0.2), ("charts", 0.25), ("summary", 0.05)):
        await write(part, seconds)
    return len(sources)


@DBOS.step()
def load(number: int) -> int:
    """Load a row."""
    time.sleep(random.Random(number).uniform(0.01, 0.12))  # noqa: S311 - for shape, not secrecy
    return number


@DBOS.step()
def store(number: int) -> None:
    """Store a row; two rows are invalid."""
    if number in (150, 333):
        raise RowError(f"row {number} has no price")
    time.sleep(0.01)


@DBOS.workflow()
def import_one(number: int) -> int:
    """Import one row."""
    store(load(number))
    return number


@DBOS.workflow()
def import_all() -> int:
    """Import all rows, as many concurrently as the queue allows."""
    handles = [DBOS.enqueue_workflow(QUEUE, import_one, number) for number in range(CHILDREN)]
    imported = 0
    for handle in handles:
        try:
            handle.get_result()
            imported += 1
        except RowError:
            DBOS.logger.debug("row skipped")
    return imported


@DBOS.step()
def book_courier(city: str) -> str:
    """Find a courier."""
    time.sleep(0.2)
    raise CourierError(f"nobody drives to {city} today")


@DBOS.step()
def price() -> int:
    """Compute the price of an order."""
    time.sleep(0.1)
    return 17


@DBOS.step()
def reserve() -> str:
    """Reserve the goods."""
    time.sleep(0.3)
    return "shelf 4"


@DBOS.step()
def charge() -> str:
    """Charge the card."""
    time.sleep(0.4)
    return "paid"


@DBOS.workflow()
def ship(city: str) -> str:
    """Book a courier for the parcel."""
    DBOS.sleep(0.5)
    return book_courier(city)


@DBOS.workflow()
def fulfil(city: str) -> str:
    """Reserve and ship."""
    reserve()
    return DBOS.enqueue_workflow(QUEUE, ship, city).get_result()


@DBOS.workflow()
def order(city: str) -> str:
    """Process an order from its price to its shipment."""
    price()
    charge()
    return DBOS.enqueue_workflow(QUEUE, fulfil, city).get_result()


async def _report() -> None:
    handle = await DBOS.start_workflow_async(build_report)
    await handle.get_result()


def main(url: str) -> None:
    """Run each workflow once."""
    config: DBOSConfig = {
        "name": "gallery",
        "system_database_url": url,
        "log_level": "CRITICAL",
        "application_version": "1.0",
        "executor_id": "gallery",
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, concurrency=24, polling_interval_sec=0.05)
    with SetWorkflowID("order-17"):
        failing = DBOS.start_workflow(order, "Kraków")
    try:
        failing.get_result()
    except CourierError:
        print("order-17 failed, as expected")
    with SetWorkflowID("report-march"):
        asyncio.run(_report())
    with SetWorkflowID("import-march"):
        DBOS.start_workflow(import_all).get_result()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
