"""A payment method that a customer has saved at a provider. Card numbers are never stored."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

_LAST4: Final = re.compile(r"\d{4}", re.ASCII)
_MAX_BRAND_LENGTH: Final = 50


@dataclass(frozen=True)
class MethodDetails:
    """A saved method as the provider reports it: its token there, and what identifies the card."""

    token: str
    brand: str | None = None
    last4: str | None = None
    exp_month: int | None = None
    exp_year: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for anything but the last four digits of a card number."""
        if self.last4 is not None and not _LAST4.fullmatch(self.last4):
            raise ValueError("last4 must have four digits")
        if self.brand is not None and len(self.brand) > _MAX_BRAND_LENGTH:
            raise ValueError("the brand is too long")


@dataclass(frozen=True)
class ProviderCustomer:
    """The customer object of a user at a provider."""

    user_id: UUID
    provider: str
    reference: str


@dataclass(frozen=True)
class SavedMethod:
    """A saved method of a user.

    `customer` is the reference of the user's customer object at the provider. A deleted method is
    a tombstone, so that a late answer of the provider does not save it again. `detach_at` is the
    time at which a job detaches a deleted method at the provider; None when that is done.
    """

    saved_method_id: UUID
    user_id: UUID
    provider: str
    customer: str
    details: MethodDetails
    created_at: datetime
    deleted_at: datetime | None = None
    detach_at: datetime | None = None

    @property
    def is_deleted(self) -> bool:
        return self.deleted_at is not None
