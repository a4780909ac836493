"""The export of orders as CSV: rows, filters, cells and memory."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest

from markethall.orders.contract import OrderFilters, OrderView
from markethall.orders.service import export_orders
from markethall.orders.service.export_orders import CSV_HEADER
from markethall.shared.kernel.csv_format import escape_formula, unescape_formula
from tests.orders.conftest import CANCEL, STAFF, OrdersApp, attempt_without_key
from tests.orders.test_open_edits import additional_id, paid_with_open_edit
from tests.orders.test_status_waits import cancel, placed

ADDRESS = {
    "recipient": "=Ada",
    "line1": 'Keizersgracht "1"',
    "city": "Amsterdam",
    "postal_code": "1015 CJ",
    "country": "NL",
    "phone": "+31 20 1234567",
}


async def exported(orders_app: OrdersApp, **filters: Any) -> list[dict[str, str]]:
    chunks = orders_app.container.order_export().export_orders(STAFF, OrderFilters(**filters))
    text = b"".join([chunk async for chunk in chunks]).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def with_lines(orders_app: OrdersApp, count: int, **more: Any) -> OrderView:
    products = [orders_app.fake_inventory.add_product(5) for _ in range(count)]
    lines = [{"product_id": product, "quantity": 2} for product in products]
    return await orders_app.place(products[0], lines=lines, **more)


async def test_export_without_orders_is_a_header(orders_app: OrdersApp) -> None:
    chunks = orders_app.container.order_export().export_orders(STAFF, OrderFilters())

    text = b"".join([chunk async for chunk in chunks]).decode()

    assert text == ",".join(CSV_HEADER) + "\r\n"


async def test_each_line_is_a_row_and_amounts_of_the_order_stand_once(
    orders_app: OrdersApp,
) -> None:
    order = await with_lines(orders_app, 3)

    rows = await exported(orders_app)

    assert [row["number"] for row in rows] == [order.number] * 3
    assert [row["currency"] for row in rows] == ["EUR"] * 3
    assert [row["line_id"] for row in rows] == [str(line.line_id) for line in order.lines]
    assert [row["total"] for row in rows] == [f"{order.total.amount / 100:.2f}", "", ""]
    assert [row["line_quantity"] for row in rows] == ["2"] * 3
    line_totals = sum(round(float(row["line_charged"]) * 100) for row in rows)
    assert line_totals == order.total.amount


async def test_cells_are_no_formulas(orders_app: OrdersApp) -> None:
    await with_lines(orders_app, 1, shipping_address=ADDRESS, note="@SUM(A1)", email="=a@b.example")

    (row,) = await exported(orders_app)

    assert row["shipping_recipient"] == "'=Ada"
    assert row["shipping_line1"] == 'Keizersgracht "1"'
    assert row["shipping_phone"] == "'+31 20 1234567"
    assert row["note"] == "'@SUM(A1)"
    assert row["email"] == "'=a@b.example"
    assert row["billing_city"] == ""


@pytest.mark.parametrize("sign", [*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20"])
def test_text_that_a_spreadsheet_may_run_gets_an_apostrophe(sign: str) -> None:
    for text in (f"{sign}1", f"'{sign}1"):
        escaped = escape_formula(text)

        assert escaped == f"'{text}"
        assert unescape_formula(escaped) == text


async def test_address_of_free_text_stands_in_the_first_line(orders_app: OrdersApp) -> None:
    await placed(orders_app)

    (row,) = await exported(orders_app)

    assert (row["shipping_line1"], row["shipping_recipient"]) == ("Market 1", "")


async def test_refunds_of_additional_payments_are_counted(orders_app: OrdersApp) -> None:
    _, order, edited = await paid_with_open_edit(orders_app)
    orders_app.fake_payments.capture(additional_id(edited))
    await orders_app.process_events(times=2)
    await orders_app.orders.cancel(STAFF, order.order_id, CANCEL, attempt_without_key())
    await orders_app.process_events(times=3)

    (row,) = await exported(orders_app)

    assert (row["total"], row["refunded"]) == ("30.00", "30.00")


async def test_export_has_the_filters_of_the_list(orders_app: OrdersApp) -> None:
    kept = await placed(orders_app)
    cancelled = await placed(orders_app)
    await cancel(orders_app, cancelled)

    rows = await exported(orders_app, status="cancelled")
    others = await exported(orders_app, number=kept.number)

    assert [row["order_id"] for row in rows] == [str(cancelled.order_id)]
    assert [row["order_id"] for row in others] == [str(kept.order_id)]


@pytest.mark.parametrize("sort", ["created_at", "-created_at"])
async def test_export_reads_all_pages(
    orders_app: OrdersApp, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    monkeypatch.setattr(export_orders, "PAGE_SIZE", 2)
    numbers = [(await placed(orders_app)).number for _ in range(5)]

    chunks = orders_app.container.order_export().export_orders(
        STAFF, OrderFilters.model_validate({"sort": sort})
    )
    parts = [part async for part in as_texts(chunks)]

    expected = numbers if sort == "created_at" else numbers[::-1]
    rows = csv.DictReader(io.StringIO("".join(parts), newline=""))
    assert [row["number"] for row in rows] == expected
    assert [part.count("\r\n") for part in parts] == [3, 2, 1]


async def as_texts(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    async for chunk in chunks:
        yield chunk.decode()
