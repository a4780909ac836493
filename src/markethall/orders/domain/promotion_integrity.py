"""Rules between promotions, their uses and the orders that have their discounts."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from markethall.orders.contract import OrderStatus
from markethall.shared.kernel.integrity import OffendingRow

_ENDED = frozenset({OrderStatus.CANCELLED, OrderStatus.EXPIRED})


@dataclass(frozen=True)
class PromotionCounts:
    """The counters of a promotion, and the uses that they count.

    `most_by_one_customer` is the largest number of uses that one customer has taken, without those
    of guests whom the customer has claimed. `wrong_customers` is the number of customers whose
    counter differs from their uses.
    """

    promotion_id: UUID
    usage_limit: int | None
    per_customer_limit: int | None
    used: int
    uses: int
    most_by_one_customer: int
    wrong_customers: int


@dataclass(frozen=True)
class DiscountedOrderFacts:
    """The existing promotions whose discounts an order has, and those whose uses it has."""

    order_id: UUID
    status: OrderStatus
    discounted: frozenset[UUID]
    used: frozenset[UUID]


def judge_counts(counts: PromotionCounts) -> Iterator[OffendingRow]:
    """Check that the counters count the uses, and that no limit is exceeded."""
    for problem in _list_count_problems(counts):
        yield OffendingRow(row=f"promotion promotion_id={counts.promotion_id}", problem=problem)


def _list_count_problems(counts: PromotionCounts) -> Iterator[str]:
    if counts.usage_limit is not None:
        if counts.used != counts.uses:
            yield f"used is {counts.used}, {counts.uses} orders use it"
        if counts.uses > counts.usage_limit:
            yield f"{counts.uses} orders use it, usage_limit is {counts.usage_limit}"
    limit = counts.per_customer_limit
    if limit is not None and counts.most_by_one_customer > limit:
        yield (
            f"one customer has {counts.most_by_one_customer} uses, per_customer_limit is {limit}"
        )
    if counts.wrong_customers:
        yield f"the counters of {counts.wrong_customers} customers differ from their uses"


def judge_discounts(order: DiscountedOrderFacts) -> Iterator[OffendingRow]:
    """Check that an order uses the promotions of its discounts until it is cancelled or expired."""
    expected = frozenset[UUID]() if order.status in _ENDED else order.discounted
    for promotion_id in sorted(expected - order.used):
        yield _order_row(order, f"has the discount of promotion {promotion_id} without a use")
    for promotion_id in sorted(order.used - expected):
        yield _order_row(order, f"has a use of promotion {promotion_id} without a discount")


def _order_row(order: DiscountedOrderFacts, problem: str) -> OffendingRow:
    return OffendingRow(
        row=f"order order_id={order.order_id}", problem=f"{order.status}, {problem}"
    )
