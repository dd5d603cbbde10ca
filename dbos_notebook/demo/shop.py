"""The demo application: a shop with steps and workflows as a developer would write them.

Only worker processes import this module, because its decorators register functions with DBOS.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

from dbos import DBOS

FOREVER = 365 * 24 * 3600.0
BUGGY_VERSION = "1.0"


class Payment(Enum):
    """How an order is paid."""

    CARD = "card"
    TRANSFER = "transfer"


@dataclass(frozen=True)
class Line:
    """One line of an order."""

    sku: str
    title: str
    quantity: int
    price: Decimal


@dataclass(frozen=True)
class Order:
    """The order of a customer."""

    number: str
    customer: str
    city: str
    note: str
    payment: Payment
    placed_at: datetime
    lines: tuple[Line, ...]
    coupon: str | None = None
    # The intended failure; "fine" for none.
    fate: str = "fine"


class ShopError(Exception):
    """The base class of the shop's errors."""


class CouponError(ShopError):
    """A coupon could not be applied."""


class PaymentDeclinedError(ShopError):
    """The bank declined a payment."""

    def __init__(self, reason: str, amount: Decimal) -> None:
        super().__init__(reason, amount)
        self.reason = reason
        self.amount = amount


class OutOfStockError(ShopError):
    """Too few items are in stock."""


class CourierError(ShopError):
    """No courier accepted the parcel."""


class GatewayTimeoutError(ShopError):
    """The bank did not respond; a retry may succeed."""


_CUSTOMERS = (
    "Ada Lovelace",
    "Željko Šarić",
    "山田 太郎",
    "Zoë O'Neil",
    "<b>Bob</b> & Söhne",
    "محمد",
)
_CITIES = ("Berlin", "São Paulo", "東京", "Kraków", "Reykjavík")
_NOTES = (
    "",
    "ring twice 🔔",
    "<script>alert('boo')</script>",
    'say "hello"; 100% {sure}',
    "a\nb\tc",
)
_GOODS = (
    ("TEA-1", "Sencha 煎茶", Decimal("12.50")),
    ("MUG-2", "Mug <large>", Decimal("9.90")),
    ("POT-3", "Teekanne für vier", Decimal("48.00")),
    ("TIN-4", "Tin & spoon", Decimal("6.25")),
)


def make_order(number: str, seed: int, fate: str) -> Order:
    """Return the order for a seed."""
    choose = random.Random(seed)
    goods = choose.sample(_GOODS, choose.randint(1, 3))
    return Order(
        number=number,
        customer=choose.choice(_CUSTOMERS),
        city=choose.choice(_CITIES),
        note=choose.choice(_NOTES),
        payment=Payment.TRANSFER if fate in ("transfer", "unpaid") else Payment.CARD,
        placed_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=choose.randrange(10**5)),
        lines=tuple(Line(sku, title, choose.randint(1, 3), price) for sku, title, price in goods),
        coupon="SPRING-ÄÖÜ" if fate == "coupon" else None,
        fate=fate,
    )


@DBOS.step()
def price(order: Order) -> Decimal:
    """Return the total of an order. The first version fails for coupons that are not ASCII."""
    total = sum((line.price * line.quantity for line in order.lines), Decimal(0))
    if order.coupon:
        if DBOS.application_version == BUGGY_VERSION:
            raise CouponError(f"cannot read coupon {order.coupon!r} of {order.customer}")
        total *= Decimal("0.90")
    return total.quantize(Decimal("0.01"))


def _may_help(error: BaseException) -> bool:
    return isinstance(error, GatewayTimeoutError)


@DBOS.step(retries_allowed=True, max_attempts=4, interval_seconds=0.01, should_retry=_may_help)
def charge(order: Order, amount: Decimal) -> str:
    """Charge the card. Some charges succeed on the second attempt only."""
    if order.fate == "declined":
        raise PaymentDeclinedError("insufficient funds", amount)
    status = DBOS.step_status
    attempt = status.current_attempt if status else None
    if len(order.customer) % 3 == 0 and not attempt:
        raise GatewayTimeoutError(f"no answer for {order.number}")
    return f"charge-{order.number}"


@DBOS.step()
def reserve(order: Order) -> dict[str, int]:
    """Reserve the items of an order."""
    if order.fate == "out_of_stock":
        raise OutOfStockError(f"only 0 of {order.lines[0].title} left")
    return {line.sku: line.quantity for line in order.lines}


@DBOS.step()
def wrap(line: Line) -> str:
    """Wrap the goods of one line."""
    return f"{line.quantity} × {line.title}"


@DBOS.step()
def book_courier(order: Order) -> str:
    """Book a courier for the parcel. The first version tries only one."""
    if order.fate == "refused" and DBOS.application_version == BUGGY_VERSION:
        raise CourierError(f"nobody drives to {order.city} today")
    return f"courier-{order.number}"


@DBOS.workflow()
def pack(order: Order) -> list[str]:
    """Wrap every line of an order."""
    return [wrap(line) for line in order.lines]


@DBOS.workflow()
def ship(order: Order) -> str:
    """Hand the parcel to a courier."""
    tracking = book_courier(order)
    DBOS.sleep(0.01)
    return tracking


@DBOS.workflow()
def fulfil(order: Order) -> str:
    """Reserve, pack and ship."""
    reserve(order)
    parcels = DBOS.start_workflow(pack, order).get_result()
    DBOS.write_stream("parcels", parcels)
    DBOS.close_stream("parcels")
    return DBOS.start_workflow(ship, order).get_result()


@DBOS.workflow()
def order(order: Order) -> dict[str, Any]:
    """Process an order from payment to delivery."""
    DBOS.set_event("stage", "placed")
    amount = price(order)
    if order.payment is Payment.TRANSFER:
        DBOS.set_event("stage", "awaiting payment")
        paid = DBOS.recv("payment", timeout_seconds=FOREVER)
    else:
        paid = charge(order, amount)
    tracking = DBOS.start_workflow(fulfil, order).get_result()
    DBOS.set_event("stage", "shipped")
    return {"amount": amount, "paid": paid, "tracking": tracking, "placed_at": order.placed_at}


@DBOS.step()
async def ask_supplier(name: str, seconds: float) -> Decimal:
    """Request a price from one supplier."""
    await asyncio.sleep(seconds)
    return Decimal(len(name)) / 4


@DBOS.workflow()
async def quote(sku: str) -> Decimal:
    """Request prices from three suppliers concurrently, and return the lowest."""
    names = ("Nord", "Süd-Handel", "東西商会")
    return min(await asyncio.gather(*(ask_supplier(n, 0.01 * len(n)) for n in names)))


@DBOS.step()
def deliver_mail(address: str) -> int:
    """Send one e-mail."""
    return 250


@DBOS.workflow()
def newsletter(address: str) -> int:
    """Send the newsletter to one customer."""
    return deliver_mail(address)


@DBOS.step()
def compare_books(day: str) -> int:
    """Compare the ledger with the bank's records."""
    return len(day)


@DBOS.workflow()
def reconcile(day: str, *, until_told: bool = False) -> int:
    """Close the books of a day; with ``until_told``, after somebody has signed."""
    if until_told:
        DBOS.set_event("stage", "awaiting signature")
        DBOS.recv("signature", timeout_seconds=FOREVER)
    return compare_books(day)


@DBOS.workflow()
def count_stock(scheduled_at: datetime, context: Any) -> None:
    """Count the stock every night."""
    compare_books(scheduled_at.isoformat())
