"""The rules of the shelf: no framework, no database, no clock."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Self
from uuid import UUID

from markethall.inventory.contract import (
    MAX_ATTRIBUTES,
    MAX_OPTIONS,
    Adjustment,
    NewProduct,
    OutOfStock,
    Price,
    Product,
    ProductChange,
    ProductStatus,
    Reason,
    Reservation,
    ReservationClosed,
    ReservationStatus,
    Reserve,
    ReservedLine,
    Want,
    WouldGoNegative,
)
from markethall.shared.errors import Invalid, Refusal
from markethall.shared.money import Money

# the one warehouse that every hall has
MAIN_WAREHOUSE: Final = UUID("00000000-0000-7000-8000-000000000001")

_CLEARED: Final[Mapping[str, Any]] = MappingProxyType(
    {"description": "", "tags": (), "images": (), "options": {}, "attributes": {}}
)
_MOST: Final = MappingProxyType({"options": MAX_OPTIONS, "attributes": MAX_ATTRIBUTES})

HELD, COMMITTED, CONSUMED = (
    ReservationStatus.HELD,
    ReservationStatus.COMMITTED,
    ReservationStatus.CONSUMED,
)
RELEASED, EXPIRED = ReservationStatus.RELEASED, ReservationStatus.EXPIRED


# Products


@dataclass
class Item:
    """A product as it is kept. Its values are replaced, never changed in place."""

    product_id: UUID
    sku: str
    name: str
    description: str
    price: Money
    category: str | None
    family: str | None
    options: Mapping[str, str]
    tags: tuple[str, ...]
    images: tuple[str, ...]
    attributes: Mapping[str, str | int | bool]
    status: ProductStatus
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def new(cls, product_id: UUID, command: NewProduct, now: datetime) -> Self:
        fields = {name: _kept(getattr(command, name)) for name in NewProduct.model_fields}
        return cls(product_id=product_id, version=1, created_at=now, updated_at=now, **fields)

    def change(self, command: ProductChange, now: datetime) -> bool:
        """False when everything is so already. Raises Invalid."""
        wanted = {
            name: _patched(getattr(self, name), name, getattr(command, name))
            for name in command.model_fields_set
        }
        new = {name: value for name, value in wanted.items() if value != getattr(self, name)}
        for name, value in new.items():
            setattr(self, name, value)
        return self._changed(now) if new else False

    def archive(self, now: datetime) -> bool:
        """False when it is archived already."""
        if self.status == ProductStatus.ARCHIVED:
            return False
        self.status = ProductStatus.ARCHIVED
        return self._changed(now)

    def seen_with(self, available: int) -> Product:
        return Product(**vars(self), available=available)

    def _changed(self, now: datetime) -> bool:
        self.version += 1
        self.updated_at = now
        return True


def _kept(value: Any) -> Any:
    """A request's value as the entity keeps it: tags once, money as Money."""
    if isinstance(value, Price):
        return Money(amount=value.amount, currency=value.currency)
    return tuple(dict.fromkeys(value)) if isinstance(value, tuple) else value


def _patched(now: Any, name: str, value: Any) -> Any:
    if value is None:
        return _CLEARED.get(name)
    return _merged(now, name, value) if name in _MOST else _kept(value)


def _merged(now: Mapping[str, Any], name: str, patch: Mapping[str, Any]) -> Mapping[str, Any]:
    merged = {key: value for key, value in {**now, **patch}.items() if value is not None}
    if len(merged) > _MOST[name]:
        message = f"should have at most {_MOST[name]} after the change"
        raise Invalid(errors=[{"field": f"/{name}", "code": "too_long", "message": message}])
    return merged


# Stock


@dataclass(frozen=True)
class Stock:
    """One product in one warehouse. `overdue` is what expired holds still have of `reserved`."""

    product_id: UUID
    warehouse_id: UUID
    on_hand: int = 0
    reserved: int = 0
    overdue: int = 0

    @property
    def available(self) -> int:
        return self.on_hand - self.reserved + self.overdue


@dataclass(frozen=True)
class Goods:
    """Some units of one product in one warehouse."""

    product_id: UUID
    warehouse_id: UUID
    quantity: int


@dataclass(frozen=True)
class Change:
    """A movement that is asked for: by so much (delta), or to so much (counted)."""

    movement_id: UUID
    product_id: UUID
    warehouse_id: UUID
    delta: int | None
    counted: int | None
    reason: Reason
    note: str
    reference: UUID | None
    actor: str
    created_at: datetime

    def delta_of(self, on_hand: int) -> int:
        if self.delta is not None:
            return self.delta
        return (self.counted or 0) - on_hand


def check_adjustment(command: Adjustment) -> None:
    """Raises Invalid."""
    if (command.delta is None) == (command.counted is None):
        message = "exactly one of delta and counted must be given"
        raise Invalid(errors=[{"field": "", "code": "delta_or_counted", "message": message}])
    if command.delta == 0:
        message = "must not be zero"
        raise Invalid(errors=[{"field": "/delta", "code": "zero", "message": message}])


def summed(goods: Iterable[Goods]) -> tuple[Goods, ...]:
    """One per product and warehouse, in that order."""
    total: Counter[tuple[UUID, UUID]] = Counter()
    for some in goods:
        total[some.product_id, some.warehouse_id] += some.quantity
    # sorted: whoever takes several products locks their rows in the same order as all others
    return tuple(Goods(*place, total[place]) for place in sorted(total))


def goods_of(wants: Iterable[Want]) -> tuple[Goods, ...]:
    return summed(Goods(want.product_id, MAIN_WAREHOUSE, want.quantity) for want in wants)


@dataclass(frozen=True)
class Missing:
    """Goods that could not be taken, and how many there were, those of expired holds included."""

    goods: Goods
    available: int

    @property
    def short(self) -> bool:
        return self.available < self.goods.quantity


class Shortage(Exception):
    """There is too little just now: `refusal`. Unless it is `final`, the goods of expired holds
    would do.
    """

    def __init__(self, product_ids: Sequence[UUID], refusal: Refusal, *, final: bool) -> None:
        super().__init__(refusal)
        self.product_ids = product_ids
        self.refusal = refusal
        self.final = final


def not_enough(missing: Sequence[Missing]) -> Shortage:
    """For what could not be taken."""
    short = [some for some in missing if some.short]
    refusal = OutOfStock(lines=[_line_of(some) for some in short or missing])
    return Shortage([some.goods.product_id for some in missing], refusal, final=bool(short))


def too_few(stock: Stock, change: Change) -> Shortage:
    """For a movement that would leave less on hand than is reserved."""
    left = stock.on_hand + change.delta_of(stock.on_hand)
    refusal = WouldGoNegative(on_hand=stock.on_hand, reserved=stock.reserved)
    return Shortage([stock.product_id], refusal, final=left < stock.reserved - stock.overdue)


def _line_of(some: Missing) -> dict[str, Any]:
    return {
        "product_id": str(some.goods.product_id),
        "requested": some.goods.quantity,
        # what came back since we failed to take it was not there when we did
        "available": min(some.available, some.goods.quantity - 1),
    }


# Reservations


@dataclass(frozen=True)
class Line:
    product_id: UUID
    warehouse_id: UUID
    sku: str
    name: str
    unit_price: Money
    quantity: int
    consumed: int = 0

    @property
    def remaining(self) -> Goods:
        return Goods(self.product_id, self.warehouse_id, self.quantity - self.consumed)


@dataclass
class Hold:
    """Goods kept for an order. Lines are in product id order."""

    reservation_id: UUID
    order_id: UUID | None
    customer_id: UUID | None
    status: ReservationStatus
    expires_at: datetime
    lines: tuple[Line, ...] = ()

    @classmethod
    def of(cls, command: Reserve) -> Self:
        return cls(
            command.reservation_id, command.order_id, command.customer_id, HELD, command.expires_at
        )

    @classmethod
    def tombstone(cls, reservation_id: UUID, now: datetime) -> Self:
        """What a release leaves behind that came before its reserve."""
        return cls(reservation_id, None, None, RELEASED, now)

    def commit(self) -> tuple[Goods, ...]:
        """The goods that must be taken again first. Raises ReservationClosed."""
        if self.status == RELEASED:
            raise closed(self.reservation_id, self.status)
        taken_again = self._remaining() if self.status == EXPIRED else ()
        if self.status != CONSUMED:
            self.status = COMMITTED
        return taken_again

    def release(self) -> tuple[Goods, ...]:
        """The goods to give back."""
        freed = self._remaining() if self.status in {HELD, COMMITTED} else ()
        if self.status != CONSUMED:
            self.status = RELEASED
        return freed

    def expire(self) -> tuple[Goods, ...]:
        """The goods to give back."""
        freed = self._remaining()
        self.status = EXPIRED
        return freed

    def consume(self, goods: Iterable[Goods]) -> None:
        """These goods leave. Raises ReservationClosed."""
        if self.status not in {HELD, COMMITTED}:
            raise closed(self.reservation_id, self.status)
        leaving = {some.product_id: some.quantity for some in goods}
        self._check_enough(leaving)
        self.lines = tuple(
            replace(line, consumed=line.consumed + leaving.get(line.product_id, 0))
            for line in self.lines
        )
        self.status = COMMITTED if self._remaining() else CONSUMED

    def view(self) -> Reservation:
        return Reservation(
            reservation_id=self.reservation_id,
            order_id=self.order_id,
            status=self.status,
            lines=tuple(_reserved(line) for line in self.lines),
            expires_at=self.expires_at,
        )

    def _remaining(self) -> tuple[Goods, ...]:
        return tuple(line.remaining for line in self.lines if line.remaining.quantity)

    def _check_enough(self, leaving: Mapping[UUID, int]) -> None:
        left = {line.product_id: line.remaining.quantity for line in self.lines}
        over = [
            {"product_id": str(key), "requested": wanted, "remaining": left.get(key, 0)}
            for key, wanted in leaving.items()
            if wanted > left.get(key, 0)
        ]
        if over:
            raise closed(self.reservation_id, self.status, lines=over)


def closed(
    reservation_id: UUID, status: ReservationStatus | None, **details: Any
) -> ReservationClosed:
    return ReservationClosed(reservation_id=str(reservation_id), status=status, **details)


def _reserved(line: Line) -> ReservedLine:
    return ReservedLine(
        product_id=line.product_id,
        sku=line.sku,
        name=line.name,
        unit_price=line.unit_price,
        quantity=line.quantity,
    )
