"""The current prices and totals of carts and draft orders. Nothing is reserved."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from markethall.inventory.contract import Inventory, ListOffers, ProductNotFound
from markethall.orders.carts.domain import Cart, Offer
from markethall.orders.contract import OrderCurrencyMismatch, VoucherExhausted, VoucherInvalid
from markethall.orders.pricing.domain import Quote, QuoteRequest
from markethall.orders.pricing.service import Pricing
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError, Unavailable

_VOUCHER_ERRORS: Final = (VoucherInvalid, VoucherExhausted)


@dataclass(frozen=True)
class Preview:
    """The offers of the products of a cart or a draft order, and its price.

    The price is None if there is no line to price, or if `error` prevents it. If the cart cannot
    use its voucher, `error` is the reason, and the price is the one without the voucher.
    """

    offers: Mapping[UUID, Offer]
    quote: Quote | None = None
    error: DomainError | None = None

    def require_currency(self) -> None:
        """Raises OrderCurrencyMismatch."""
        if isinstance(self.error, OrderCurrencyMismatch):
            raise self.error

    def require_voucher(self) -> None:
        """Raises VoucherInvalid, VoucherExhausted."""
        if isinstance(self.error, _VOUCHER_ERRORS):
            raise self.error


class CartPreviews:
    def __init__(self, inventory: Inventory, pricing: Pricing) -> None:
        self._inventory = inventory
        self._pricing = pricing

    async def preview(self, ctx: CallContext, cart: Cart) -> Preview:
        """Read the offers and price the cart. Raises Unavailable."""
        return await self.price_cart(
            cart, await self.list_offers(ctx, cart.product_ids, cart.currency)
        )

    async def list_offers(
        self, ctx: CallContext, product_ids: Iterable[UUID], currency: str | None
    ) -> Mapping[UUID, Offer]:
        """Return the offers of the products that are sold. Raises Unavailable.

        Without `currency`, the prices are in the default currency of the shop. A product without a
        price in the currency is offered at its own price.
        """
        ids = tuple(product_ids)
        if not ids:
            return {}
        chosen = await self._pricing.choose_currency(currency)
        query = ListOffers(product_ids=ids, currency=chosen)
        offers = await self._inventory.list_offers(ctx, query)
        return {
            offer.product_id: Offer(**dict(offer) | {"weight_grams": offer.weight_grams or 0})
            for offer in offers.items
        }

    async def price_cart(self, cart: Cart, offers: Mapping[UUID, Offer]) -> Preview:
        """Price the lines whose products are sold. Raises Unavailable."""
        return await self.price(cart.to_quote_request(offers), offers)

    async def price(self, request: QuoteRequest, offers: Mapping[UUID, Offer]) -> Preview:
        """Price lines of these offers. Raises Unavailable."""
        if not request.lines:
            return Preview(offers)
        try:
            return await self._quote(offers, request)
        except _VOUCHER_ERRORS as error:
            without_voucher = replace(request, voucher_code=None)
            return replace(await self._quote(offers, without_voucher), error=error)

    async def _quote(self, offers: Mapping[UUID, Offer], request: QuoteRequest) -> Preview:
        """Raises VoucherInvalid, VoucherExhausted, Unavailable."""
        try:
            quote = await self._pricing.quote(request)
        except (Unavailable, *_VOUCHER_ERRORS):
            raise
        except DomainError as error:
            return Preview(offers, error=error)
        return Preview(offers, quote, quote.error)


def require_offers(offers: Mapping[UUID, Offer], product_ids: Sequence[UUID]) -> None:
    """Raises ProductNotFound if a product is not sold."""
    unknown = [str(product_id) for product_id in product_ids if product_id not in offers]
    if unknown:
        raise ProductNotFound(product_ids=unknown)
