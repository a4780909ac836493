"""Parts of a checkout: the source of the order, the address for messages, and the payment."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from markethall.inventory.contract import ReservationView
from markethall.orders.carts.contract import CartChanged, CartClosed, CartNotFound
from markethall.orders.carts.domain import CartRef
from markethall.orders.contract import Address, PlaceOrder
from markethall.orders.domain import Order
from markethall.orders.drafts.contract import DraftOrderChanged, DraftOrderCompleted
from markethall.orders.drafts.domain import DraftRef
from markethall.orders.ports import Store
from markethall.orders.pricing.domain import Quote
from markethall.payments.contract import OpenPayment
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError, ValidationFailed
from markethall.shared.kernel.ids import derive_uuid7
from markethall.users.contract import Customer

GUEST_WITHOUT_EMAIL: Final = "A guest must give an e-mail address."
# the errors of a source that was closed or changed after it was read
SOURCE_CONFLICTS: Final = (
    *(CartClosed, CartChanged, CartNotFound),
    *(DraftOrderCompleted, DraftOrderChanged),
)


@dataclass(frozen=True)
class CartSource:
    """A cart that is checked out."""

    ref: CartRef

    async def close(self, store: Store, order: Order) -> bool:
        """Close the cart. Return False if it is closed or has another version."""
        return await store.check_out_cart(self.ref, order.order_id, order.created_at)

    async def find_conflict(self, store: Store) -> DomainError:
        """Return the reason why the cart could not be closed."""
        cart = await store.get_cart(self.ref.cart_id)
        if cart is None:
            return CartNotFound(cart_id=str(self.ref.cart_id))
        return cart.closed_error() or self.changed_error()

    def changed_error(self) -> DomainError:
        return CartChanged(cart_id=str(self.ref.cart_id))


@dataclass(frozen=True)
class DraftSource:
    """A draft that is completed. `completed_by` is the actor for the timeline.

    `buyer` is None if the buyer has an account or is a guest of the context users.
    """

    ref: DraftRef
    completed_by: str
    buyer: Customer | None

    async def close(self, store: Store, order: Order) -> bool:
        """Complete the draft. Return False if it is completed or has another version."""
        return await store.complete_draft(self.ref, order.order_id, order.created_at)

    async def find_conflict(self, store: Store) -> DomainError:
        """Return the reason why the draft could not be completed."""
        draft = await store.get_draft(self.ref.draft_order_id)
        return draft.completed_error() if draft and draft.order_id else self.changed_error()

    def changed_error(self) -> DomainError:
        return DraftOrderChanged(draft_order_id=str(self.ref.draft_order_id))


def reserves_other_lines(command: PlaceOrder, reservation: ReservationView) -> bool:
    """Tell whether an earlier attempt has reserved other lines than the source has now."""
    units: Counter[UUID] = Counter()
    for line in command.lines:
        units[line.product_id] += line.quantity
    return units != {line.product_id: line.quantity for line in reservation.lines}


def open_payment_command(
    ctx: CallContext, command: PlaceOrder, order_id: UUID, quote: Quote, expires_at: datetime
) -> OpenPayment:
    address = command.shipping_address
    return OpenPayment(
        payment_id=derive_uuid7(order_id, "payment"),
        order_id=order_id,
        user_id=ctx.user_id,
        amount=quote.total,
        expires_at=expires_at,
        # a free-text address has no separate field for the country
        country=address.country if isinstance(address, Address) else None,
        payment_method=command.payment_method,
    )


def choose_email(command: PlaceOrder, customer: Customer) -> str:
    """Return the address for messages. Raises ValidationFailed if a guest has given none."""
    email = command.email or customer.email
    if not email:
        errors = [{"field": "/email", "code": "missing", "message": GUEST_WITHOUT_EMAIL}]
        raise ValidationFailed(GUEST_WITHOUT_EMAIL, errors=errors)
    return email
