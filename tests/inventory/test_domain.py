"""The domain rules of reservations, stock and products."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from pydantic import ValidationError

from markethall.inventory.catalogue.contract.products import NewProduct, Price, ProductChange
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.contract import ReservationClosed, ReservationStatus
from markethall.inventory.reservations.domain.reservations import (
    Reservation,
    ReservationLine,
    ShortLine,
    out_of_stock_error,
)
from markethall.inventory.stock.contract import Adjustment, MovementReason
from markethall.inventory.stock.domain import (
    MAIN_WAREHOUSE,
    Stock,
    StockChange,
    StockQuantity,
    movement_shortage,
    sum_by_stock_row,
)
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TEA, CUP = UUID(int=1), UUID(int=2)


def stock_quantity(product_id: UUID, quantity: int) -> StockQuantity:
    return StockQuantity(product_id, MAIN_WAREHOUSE, quantity)


def reservation(
    status: ReservationStatus = ReservationStatus.HELD, consumed: int = 0
) -> Reservation:
    price = Money(amount=100, currency="EUR")
    lines = (ReservationLine(TEA, MAIN_WAREHOUSE, "A", "a", price, 3, consumed),)
    return Reservation(
        new_id(), new_id(), new_id(), status, NOW, NOW + timedelta(minutes=15), lines
    )


def test_quantities_are_summed_in_product_order() -> None:
    assert sum_by_stock_row(
        [stock_quantity(CUP, 1), stock_quantity(TEA, 2), stock_quantity(CUP, 3)]
    ) == (
        stock_quantity(TEA, 2),
        stock_quantity(CUP, 4),
    )


def test_commit_of_held_reservation_reserves_nothing_again() -> None:
    held = reservation()

    assert held.commit() == ()
    assert held.status == ReservationStatus.COMMITTED


def test_commit_of_expired_reservation_reserves_again() -> None:
    late = reservation(ReservationStatus.EXPIRED)

    assert late.commit() == (stock_quantity(TEA, 3),)
    assert late.status == ReservationStatus.COMMITTED


def test_released_reservation_stays_released() -> None:
    ended = reservation(ReservationStatus.RELEASED)

    with pytest.raises(ReservationClosed):
        ended.commit()
    assert ended.release() == ()
    assert ended.status == ReservationStatus.RELEASED


@pytest.mark.parametrize(
    ("status", "consumed", "returned"),
    [
        (ReservationStatus.HELD, 0, 3),
        (ReservationStatus.COMMITTED, 1, 2),
        (ReservationStatus.EXPIRED, 0, 0),
        (ReservationStatus.CONSUMED, 3, 0),
    ],
)
def test_release_returns_remaining_quantity(
    status: ReservationStatus, consumed: int, returned: int
) -> None:
    assert sum(part.quantity for part in reservation(status, consumed).release()) == returned


def test_reservation_is_consumed_after_last_unit() -> None:
    held = reservation()

    held.consume({TEA: 2})
    part = held.status
    held.consume({TEA: 1})

    assert (part, held.status) == (ReservationStatus.COMMITTED, ReservationStatus.CONSUMED)


def test_available_is_on_hand_minus_live_reservations() -> None:
    assert Stock(TEA, MAIN_WAREHOUSE, on_hand=9, reserved=5, overdue=2).available == 6


def test_out_of_stock_never_reports_enough_available() -> None:
    error = out_of_stock_error([ShortLine(TEA, 3, available=7)])

    assert error.details["lines"][0]["available"] == 2


@pytest.mark.parametrize(("overdue", "final"), [(0, True), (1, True), (2, False)])
def test_shortage_is_final_unless_expired_reservations_suffice(overdue: int, final: bool) -> None:
    stock = Stock(TEA, MAIN_WAREHOUSE, on_hand=5, reserved=3, overdue=overdue)
    counted = StockChange(
        new_id(), TEA, MAIN_WAREHOUSE, MovementReason.COUNTED, "me", NOW, counted=1
    )

    assert movement_shortage(stock, counted).is_final == final


def test_patch_contains_only_changed_fields() -> None:
    command = NewProduct(sku="TEA", name="Tea", price=Price(amount=1, currency="EUR"))
    product = Product.new(new_id(), command, NOW)

    changed = product.change(ProductChange.model_validate({"category": "tea"}), NOW)
    changed_again = product.change(ProductChange.model_validate({"category": "tea"}), NOW)

    assert (changed, changed_again, product.version, product.category, product.name) == (
        True, False, 2, "tea", "Tea",
    )  # fmt: skip


VALID = {"sku": "TEA-1", "name": "Tea", "price": {"amount": 1, "currency": "EUR"}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"sku": ""},
        {"sku": " "},
        {"sku": "line\nbreak"},
        {"sku": "x" * 101},
        {"name": ""},
        {"name": "nul\x00"},
        {"name": "\ud800"},
        {"price": {"amount": -1, "currency": "EUR"}},
        {"price": {"amount": 1.0, "currency": "EUR"}},
        {"price": {"amount": True, "currency": "EUR"}},
        {"price": {"amount": "1", "currency": "EUR"}},
        {"price": {"amount": 10**16, "currency": "EUR"}},
        {"price": {"amount": 1, "currency": "EURO"}},
        {"price": {"amount": 1, "currency": "EUR", "more": 1}},
        {"tags": [f"tag {i}" for i in range(251)]},
        {"tags": [""]},
        {"images": ["javascript:alert(1)"]},
        {"options": {"a": 1}},
        {"attributes": {"a": 1.5}},
        {"attributes": {"a": None}},
        {"attributes": {"a": 10**16}},
        {"attributes": {str(i): i for i in range(51)}},
        {"status": "gone"},
        {"nonsense": 1},
    ],
)
def test_invalid_product_is_rejected(wrong: dict[str, object]) -> None:
    NewProduct.model_validate(VALID)

    with pytest.raises(ValidationError):
        NewProduct.model_validate(VALID | wrong)


@pytest.mark.parametrize("name", ["sku", "name", "price", "status"])
def test_required_fields_cannot_be_cleared(name: str) -> None:
    with pytest.raises(ValidationError):
        ProductChange.model_validate({name: None})


@pytest.mark.parametrize(
    "wrong",
    [
        {"delta": 10**7},
        {"delta": 1.0},
        {"counted": -1},
        {"counted": True},
        {"reason": "sold"},
        {"warehouse_id": "main"},
        {"note": "x" * 501},
    ],
)
def test_invalid_adjustment_is_rejected(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Adjustment.model_validate({"reason": "received"} | wrong)
