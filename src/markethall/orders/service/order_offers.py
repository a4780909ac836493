"""Price the lines of an existing order again: with their own prices and the current products."""

from uuid import UUID

from markethall.inventory.contract import Inventory, ListOffers, ProductNotFound, ProductOffer
from markethall.orders.domain import Order
from markethall.orders.pricing.domain import QuotedLine
from markethall.orders.service.quotes import quoted_line
from markethall.shared.kernel.call_context import CallContext


async def quote_order_lines(
    inventory: Inventory, ctx: CallContext, order: Order
) -> tuple[QuotedLine, ...]:
    """Return the lines with their prices, and with the tax class and weight of the products.

    Raises ProductNotFound if a product is no longer active.
    """
    product_ids = [line.product_id for line in order.lines]
    offers = await list_offers(inventory, ctx, product_ids, order.currency)
    return tuple(
        quoted_line(
            line.line_id, offers[line.product_id], order.money(line.unit_price), line.quantity
        )
        for line in order.lines
    )


async def list_offers(
    inventory: Inventory, ctx: CallContext, product_ids: list[UUID], currency: str
) -> dict[UUID, ProductOffer]:
    """Raises ProductNotFound."""
    query = ListOffers(product_ids=tuple(product_ids), currency=currency)
    offers = {offer.product_id: offer for offer in (await inventory.list_offers(ctx, query)).items}
    if missing := [str(product_id) for product_id in product_ids if product_id not in offers]:
        raise ProductNotFound(product_ids=missing)
    return offers
