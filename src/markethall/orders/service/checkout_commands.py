"""Parts of a checkout: the address for messages, and the command that opens the payment."""

from datetime import datetime
from typing import Final
from uuid import UUID

from markethall.orders.contract import Address, PlaceOrder
from markethall.orders.pricing.domain import Quote
from markethall.payments.contract import OpenPayment
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.ids import derive_uuid7
from markethall.users.contract import Customer

GUEST_WITHOUT_EMAIL: Final = "A guest must give an e-mail address."


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
