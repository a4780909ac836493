"""Invoices: the document of an order when it is paid, and the read of an invoice."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final
from uuid import UUID

from markethall.orders.configuration.domain import ItemKind
from markethall.orders.configuration.service import ConfigurationCache
from markethall.orders.contract import OrderPaid
from markethall.orders.domain import Order
from markethall.orders.invoices.contract import (
    InvoiceAmount,
    InvoiceDocument,
    InvoiceKind,
    InvoiceLine,
    InvoiceNotFound,
    InvoiceSeller,
    InvoiceTax,
    InvoiceView,
)
from markethall.orders.invoices.domain import NewInvoice
from markethall.orders.ports import ReadStore, Store
from markethall.orders.service.views import get_visible_order
from markethall.orders.shop.contract import ShopSettings
from markethall.orders.shop.service import parse_shop
from markethall.orders.totals.domain import LineBreakdown, TaxLine
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.messaging.events import Event
from markethall.shared.persistence.database import Database

# the rate of lines without tax, in the breakdown of an order that has taxes
_NO_TAX: Final = ("", Decimal(0))


class InvoiceDrafts:
    """Builds the invoices of orders that have just been paid."""

    def __init__(self, configuration: ConfigurationCache) -> None:
        self._configuration = configuration

    async def draft_if_paid(self, order: Order, events: Iterable[Event]) -> NewInvoice | None:
        """Return the invoice to add in the transaction that saves the order.

        Return None unless the events say that the order has been paid. Call this before the
        transaction, because it may read the settings of the shop. Raises Unavailable.
        """
        if not any(isinstance(event, OrderPaid) for event in events):
            return None
        items = await self._configuration.list_all()
        shop = parse_shop(next((item for item in items if item.kind is ItemKind.SHOP), None))
        return NewInvoice(
            kind=InvoiceKind.INVOICE,
            order_id=order.order_id,
            source_id=order.order_id,
            issued_at=order.updated_at,
            document=build_document(order, shop),
        )


class InvoiceService:
    """Implementation of `Invoices`."""

    def __init__(self, database: Database[ReadStore, Store]) -> None:
        self._database = database

    async def get_invoice(self, ctx: CallContext, order_id: UUID) -> InvoiceView:
        async with self._database.read_session() as store:
            await get_visible_order(store, ctx, order_id)
            invoice = await store.get_invoice(InvoiceKind.INVOICE, order_id)
        if invoice is None:
            raise InvoiceNotFound(order_id=str(order_id))
        return InvoiceView(**vars(invoice))


def build_document(order: Order, shop: ShopSettings) -> InvoiceDocument:
    shipping = order.shipping_line
    return InvoiceDocument(
        seller=InvoiceSeller(**dict(shop) | {"email": shop.support_email}),
        billing_address=order.billing_address or order.shipping_address,
        shipping_address=order.shipping_address,
        email=order.email,
        order_number=f"{order.number_prefix}{order.number}",
        ordered_at=order.created_at,
        currency=order.currency,
        lines=tuple(
            InvoiceLine(**{name: getattr(line, name) for name in InvoiceLine.model_fields})
            for line in order.lines
        ),
        discounts=tuple(
            InvoiceAmount(
                name=f"{each.name} ({each.code})" if each.code else each.name, amount=each.amount
            )
            for each in order.discounts
        ),
        shipping=InvoiceAmount(name=shipping.name, amount=order.shipping) if shipping else None,
        taxes=_sum_taxes(order),
        subtotal=order.subtotal,
        tax=order.tax,
        included_tax=order.included_tax,
        total=order.total,
    )


def _sum_taxes(order: Order) -> tuple[InvoiceTax, ...]:
    """Add up the net prices and the taxes of each rate. Return nothing for an untaxed order."""
    sums: dict[tuple[str, Decimal], tuple[int, int]] = {}
    for net, tax_lines in _taxed_parts(order):
        for key, amount in [((line.name, line.rate), line.amount) for line in tax_lines] or [
            (_NO_TAX, 0)
        ]:
            known_net, known_amount = sums.get(key, (0, 0))
            sums[key] = known_net + net, known_amount + amount
    if not sums.keys() - {_NO_TAX}:
        return ()
    return tuple(
        InvoiceTax(name=name, rate=f"{rate.normalize():f}", net=net, amount=amount)
        for (name, rate), (net, amount) in sorted(sums.items())
    )


def _taxed_parts(order: Order) -> Iterable[tuple[int, tuple[TaxLine, ...]]]:
    """Return the net price and the taxes of each line and of the shipping."""
    for line in order.lines:
        yield line.total - line.discount - line.included_tax, line.tax_lines
    if order.shipping_line:
        part: LineBreakdown = order.shipping_line.breakdown
        yield part.taxable - part.included_tax, part.tax_lines
