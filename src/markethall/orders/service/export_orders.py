"""Export orders as CSV: one row for each line.

The amounts and addresses of an order stand only in the row of its first line, so that the sum of a
column counts each order once.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC
from typing import Final

from markethall.orders.contract import Address, OrderFilters
from markethall.orders.domain import Order, OrderLine
from markethall.orders.ports import ReadStore, Store
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.csv_format import escape_formula, format_csv_row
from markethall.shared.kernel.money import format_major_units
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.persistence.database import Database

PAGE_SIZE: Final = 200
_ADDRESS_FIELDS: Final = tuple(Address.model_fields)
_IDENTITY_COLUMNS: Final = (
    "number",
    "order_id",
    "created_at",
    "status",
    "payment_status",
    "fulfilment_status",
    "user_id",
    "email",
    "currency",
)
_AMOUNT_COLUMNS: Final = ("subtotal", "discount", "shipping", "tax", "included_tax", "total")
_ORDER_COLUMNS: Final = (
    *_AMOUNT_COLUMNS,
    # the sum over all payments of the order
    "refunded",
    "payment_id",
    "shipping_method",
    *(f"shipping_{name}" for name in _ADDRESS_FIELDS),
    *(f"billing_{name}" for name in _ADDRESS_FIELDS),
    "note",
)
_LINE_AMOUNT_COLUMNS: Final = ("unit_price", "total", "discount", "tax", "included_tax", "charged")
_LINE_COUNT_COLUMNS: Final = ("quantity", "fulfilled", "delivered", "cancelled")
CSV_HEADER: Final = (
    *_IDENTITY_COLUMNS,
    *_ORDER_COLUMNS,
    "line_id",
    "line_product_id",
    "line_sku",
    "line_name",
    *(f"line_{name}" for name in _LINE_COUNT_COLUMNS),
    *(f"line_{name}" for name in _LINE_AMOUNT_COLUMNS),
)
_NO_ORDER_CELLS: Final = ("",) * len(_ORDER_COLUMNS)


class OrderExporter:
    """Implementation of `OrderExport`."""

    def __init__(self, database: Database[ReadStore, Store]) -> None:
        self._database = database

    async def export_orders(self, ctx: CallContext, filters: OrderFilters) -> AsyncIterator[bytes]:
        """Yield the rows page by page. The first chunk begins with the header."""
        header = format_csv_row(CSV_HEADER)
        after: TimeKeyset | None = None
        while True:
            # one session per page, so that a slow client does not hold a connection
            async with self._database.read_session() as store:
                page = await store.list_orders(filters, None, after, PAGE_SIZE)
            yield "".join([header, *_format_rows(page)]).encode()
            if len(page) < PAGE_SIZE:
                return
            header, after = "", TimeKeyset(page[-1].created_at, page[-1].order_id)


def _format_rows(orders: Sequence[Order]) -> Iterator[str]:
    for order in orders:
        identity, order_cells = _identity_cells(order), _order_cells(order)
        for line in order.lines:
            yield format_csv_row((*identity, *order_cells, *_line_cells(line, order.currency)))
            order_cells = _NO_ORDER_CELLS


def _identity_cells(order: Order) -> tuple[str, ...]:
    return (
        # a prefix may begin with a minus sign
        escape_formula(f"{order.number_prefix}{order.number}"),
        str(order.order_id),
        order.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        order.status.value,
        order.payment_status.value,
        order.fulfilment_status.value,
        str(order.user_id),
        escape_formula(order.email or ""),
        order.currency,
    )


def _order_cells(order: Order) -> tuple[str, ...]:
    return (
        *(format_major_units(getattr(order, name), order.currency) for name in _AMOUNT_COLUMNS),
        format_major_units(order.total_refunded, order.currency),
        str(order.payment_id),
        escape_formula(order.shipping_line.code if order.shipping_line else ""),
        *_address_cells(order.shipping_address),
        *_address_cells(order.billing_address),
        escape_formula(order.note or ""),
    )


def _address_cells(address: str | Address | None) -> Iterator[str]:
    """Return the fields of the address. Free text stands in `line1`."""
    fields = address.model_dump() if isinstance(address, Address) else {"line1": address}
    return (escape_formula(fields.get(name) or "") for name in _ADDRESS_FIELDS)


def _line_cells(line: OrderLine, currency: str) -> tuple[str, ...]:
    return (
        str(line.line_id),
        str(line.product_id),
        escape_formula(line.sku),
        escape_formula(line.name),
        *(str(getattr(line, name)) for name in _LINE_COUNT_COLUMNS),
        *(format_major_units(getattr(line, name), currency) for name in _LINE_AMOUNT_COLUMNS),
    )
