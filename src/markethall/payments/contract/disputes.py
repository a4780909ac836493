"""The dispute of a payment: the customer asks the bank for the money back."""

from datetime import datetime

from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.money import Money


class PaymentDispute(Dto):
    """The latest dispute of a payment. Staff answer it at the provider.

    `status` and `reason` are those of the provider. Stripe's statuses are `needs_response`,
    `under_review`, `won`, `lost` and `prevented`, and for an inquiry of the bank, which takes no
    money yet, `warning_needs_response`, `warning_under_review` and `warning_closed`. `due_by` is
    the time until which the provider accepts an answer.
    """

    status: str
    reason: str
    amount: Money
    due_by: datetime | None = None
    opened_at: datetime
    provider_reference: str
