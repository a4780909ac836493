"""The reads of the integrity checks, from the in-memory tables."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from markethall.orders.configuration.memory import sort_page
from markethall.orders.contract import EditStatus, OrderPaymentStatus, OrderStatus
from markethall.orders.domain import Order
from markethall.orders.domain.integrity import OrderedCart, OrderLink, OrderSums
from markethall.orders.domain.promotion_integrity import DiscountedOrderFacts, PromotionCounts
from markethall.orders.domain.return_integrity import ReturnedLine, build_returned_line
from markethall.orders.memory.store import Tables
from markethall.orders.promotions.domain import Promotion
from markethall.orders.promotions.memory import PromotionUse, count_uses


class MemoryOrderIntegrityReads:
    def __init__(self, tables: Tables) -> None:
        self._orders = list(tables.orders.rows())
        self._carts = {cart.cart_id: cart for cart in tables.carts.rows()}
        self._promotions = list(tables.promotions.rows())
        self._uses = list(tables.promotion_uses.rows())
        self._returns = list(tables.returns.rows())

    async def list_returned_lines(self, after: UUID | None, limit: int) -> Sequence[ReturnedLine]:
        found = (
            build_returned_line(line, order.order_id, self._returns)
            for order in self._orders
            for line in order.lines
        )
        used = (
            line
            for line in found
            if line.in_return or line.returned or line.open_units or line.received_units
        )
        return sort_page(used, lambda line: line.line_id, after, limit)

    async def list_ordered_carts(self, after: UUID | None, limit: int) -> Sequence[OrderedCart]:
        checked_out = (cart.cart_id for cart in self._carts.values() if cart.order_id)
        ids = {order.cart_id for order in self._orders if order.cart_id} | set(checked_out)
        page = sort_page(ids, lambda cart_id: cart_id, after, limit)
        return [self._ordered_cart(cart_id) for cart_id in page]

    def _ordered_cart(self, cart_id: UUID) -> OrderedCart:
        order_ids = [order.order_id for order in self._orders if order.cart_id == cart_id]
        cart = self._carts.get(cart_id)
        return OrderedCart(
            cart_id=cart_id,
            order_id=min(order_ids, default=None),
            order_count=len(order_ids),
            cart_status=cart.status if cart else None,
            cart_order_id=cart.order_id if cart else None,
        )

    async def list_order_sums(self, after: UUID | None, limit: int) -> Sequence[OrderSums]:
        return [_order_sums(order) for order in sort_page(self._orders, _id_of, after, limit)]

    async def list_overdue_orders(
        self, before: datetime, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[OrderLink]:
        overdue = [
            _order_link(order)
            for order in self._orders
            if order.status is OrderStatus.PENDING and order.expires_at < before
        ]
        return sort_page(overdue, lambda order: (order.expires_at, order.order_id), after, limit)

    async def list_links_by_payment(
        self, after: UUID | None, until: UUID, limit: int
    ) -> Sequence[OrderLink]:
        links = (
            link
            for order in self._orders
            for link in (_order_link(order), *_payment_links(order))
            if link.payment_id <= until
        )
        return sort_page(links, lambda link: link.payment_id, after, limit)

    async def list_links_by_order(
        self, after: UUID | None, until: UUID, limit: int
    ) -> Sequence[OrderLink]:
        orders = [order for order in self._orders if order.order_id <= until]
        return [_order_link(order) for order in sort_page(orders, _id_of, after, limit)]

    async def list_promotion_counts(
        self, after: UUID | None, limit: int
    ) -> Sequence[PromotionCounts]:
        page = sort_page(self._promotions, lambda one: one.promotion_id, after, limit)
        return [_promotion_counts(promotion, self._uses) for promotion in page]

    async def list_discounted_orders(
        self, after: UUID | None, limit: int
    ) -> Sequence[DiscountedOrderFacts]:
        promotion_ids = frozenset(promotion.promotion_id for promotion in self._promotions)
        facts = (
            DiscountedOrderFacts(
                order.order_id,
                order.status,
                promotion_ids & {discount.promotion_id for discount in order.discounts},
                frozenset(use.promotion_id for use in self._uses if use.order_id == order.order_id),
            )
            for order in self._orders
        )
        found = (one for one in facts if one.discounted or one.used)
        return sort_page(found, lambda one: one.order_id, after, limit)


def _id_of(order: Order) -> UUID:
    return order.order_id


def _payment_links(order: Order) -> list[OrderLink]:
    """Return the links of the additional payments."""
    return [
        replace(
            _order_link(order),
            payment_id=payment.payment_id,
            payment_status=OrderPaymentStatus.PAID
            if payment.status is EditStatus.APPLIED
            else OrderPaymentStatus.NONE,
            total=payment.amount,
            payment_amount=payment.amount,
            refunded=payment.refunded,
        )
        for payment in order.additional_payments
    ]


def _promotion_counts(promotion: Promotion, uses: Sequence[PromotionUse]) -> PromotionCounts:
    used, most_by_one_customer = count_uses(promotion, uses)
    return PromotionCounts(
        promotion_id=promotion.promotion_id,
        usage_limit=promotion.fields.usage_limit,
        per_customer_limit=promotion.fields.per_customer_limit,
        used=promotion.used,
        uses=used,
        most_by_one_customer=most_by_one_customer,
        # always 0, because the storage in memory counts the uses themselves
        wrong_customers=0,
    )


def _order_link(order: Order) -> OrderLink:
    return OrderLink(**{name: getattr(order, name) for name in OrderLink.__dataclass_fields__})


def _order_sums(order: Order) -> OrderSums:
    names = ("subtotal", "discount", "shipping", "tax", "total")
    return OrderSums(
        order_id=order.order_id,
        **{name: getattr(order, name) for name in names},
        line_total=sum(line.total for line in order.lines),
        unit_total=sum(line.unit_price * line.quantity for line in order.lines),
        line_discount=sum(line.discount for line in order.lines),
        line_tax=sum(line.tax for line in order.lines),
    )
