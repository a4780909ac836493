"""The saved payment methods of a customer."""

from datetime import datetime
from uuid import UUID

from markethall.shared.kernel.model import Dto


class SavedPaymentMethodView(Dto):
    """A saved method. The provider stores the card; here are only the values that identify it.

    A value that the provider does not report is null.
    """

    saved_payment_method_id: UUID
    provider: str
    brand: str | None = None
    last4: str | None = None
    exp_month: int | None = None
    exp_year: int | None = None
    created_at: datetime
