"""The uses of promotions that follow from the changes of an order."""

from markethall.orders.domain.order_state import OrderState
from markethall.orders.promotions.domain import Redemption

# changes of an order after which the uses of its promotions change
_USE_CHANGES = frozenset({"cancelled", "expired", "edited", "revived", "claimed"})


def find_use_change(order: OrderState) -> str | None:
    """Return the pending change of the order that changes the uses of its promotions, or None."""
    changes = (entry.change for entry in order.pending_timeline_entries)
    change = next((change for change in changes if change in _USE_CHANGES), None)
    # an edit may have dropped the last discount
    may_have_uses = order.promotions if change == "edited" else order.discounts
    return change if may_have_uses else None


def build_redemption(order: OrderState, *, is_reinstatement: bool = False) -> Redemption:
    """Build the redemption of the promotions whose discounts the order has."""
    return Redemption(
        order_id=order.order_id,
        customer_id=order.user_id,
        promotion_ids=tuple(discount.promotion_id for discount in order.discounts),
        at=order.updated_at,
        is_reinstatement=is_reinstatement,
    )
