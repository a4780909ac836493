"""The uses of promotions that follow from the changes of an order."""

from enum import Enum, auto

from markethall.orders.domain.order_state import OrderState
from markethall.orders.promotions.domain import Redemption


class UseChange(Enum):
    """A change of the uses that must be stored together with the order."""

    GIVE_BACK = auto()
    # keep the uses of the promotions whose discounts the order still has
    GIVE_BACK_DROPPED = auto()
    REDEEM_AGAIN = auto()
    MOVE = auto()


_USE_CHANGES = {
    "cancelled": UseChange.GIVE_BACK,
    "expired": UseChange.GIVE_BACK,
    "edited": UseChange.GIVE_BACK_DROPPED,
    "revived": UseChange.REDEEM_AGAIN,
    "claimed": UseChange.MOVE,
}


def find_use_change(order: OrderState) -> UseChange | None:
    """Return the change that follows from the pending timeline entries, if there is one."""
    changes = (_USE_CHANGES.get(entry.change) for entry in order.pending_timeline_entries)
    change = next((change for change in changes if change), None)
    # an edit may have dropped the last discount
    may_have_uses = order.promotions if change is UseChange.GIVE_BACK_DROPPED else order.discounts
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
