"""The fields of Stripe's objects that the gateway reads. Anything else in an answer is ignored."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from markethall.shared.kernel.model import Dto, Text

# keys of the metadata that the gateway writes
OPERATION_KEY: Final = "markethall_operation_id"
PAYMENT_KEY: Final = "markethall_payment_id"
CAPTURE_KEY: Final = "markethall_capture_id"
USER_KEY: Final = "markethall_user_id"

# the cancellation reason that the gateway sends for an intent that was not paid
ABANDONED: Final = "abandoned"

# an intent in one of these statuses takes no further payment of the customer
FINAL_STATUSES: Final = frozenset({"canceled", "requires_capture", "succeeded"})

# the start of the year 9999, in seconds since 1970
_MAX_TIME: Final = 253_370_764_800

Metadata = dict[str, str]
Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]


class ErrorDetails(Dto):
    """The field `error` of a rejection, or `last_payment_error` of an intent."""

    type: Code | None = None
    code: Code | None = None
    decline_code: Code | None = None
    param: str | None = None
    payment_intent: dict[str, Any] | None = None

    @property
    def failure_code(self) -> str:
        """Return the code of the card's issuer or, if there is none, the code of Stripe."""
        return self.decline_code or self.code or self.type or "rejected"


class ErrorAnswer(Dto):
    error: ErrorDetails


class RedirectToUrl(Dto):
    url: Annotated[Text, Field(max_length=5000)]


class IntentAction(Dto):
    type: str
    redirect_to_url: RedirectToUrl | None = None


class StripeCustomer(Dto):
    object: Literal["customer"]
    id: Annotated[str, Field(pattern=r"^cus_[A-Za-z0-9_]{1,250}$")]
    deleted: bool = False


class Card(Dto):
    brand: Annotated[Text, Field(max_length=50)] | None = None
    last4: Annotated[str, Field(pattern=r"^[0-9]{4}$")] | None = None
    exp_month: Annotated[int, Field(ge=1, le=12)] | None = None
    exp_year: Annotated[int, Field(ge=2000, le=9999)] | None = None


class Method(Dto):
    """A PaymentMethod. `customer` is the id of the customer to whom it is attached."""

    object: Literal["payment_method"]
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,250}$")]
    customer: str | None = None
    card: Card | None = None


class Fee(Dto):
    """The fields of a balance transaction that give its fee, in minor units of `currency`."""

    fee: int
    currency: str


class Intent(Dto):
    """A PaymentIntent. Amounts are in Stripe's minor units."""

    object: Literal["payment_intent"]
    id: Annotated[str, Field(pattern=r"^pi_[A-Za-z0-9_]{1,250}$")]
    status: Literal[
        "requires_payment_method",
        "requires_confirmation",
        "requires_action",
        "processing",
        "requires_capture",
        "canceled",
        "succeeded",
    ]
    amount: int
    amount_received: int = 0
    currency: str
    client_secret: Annotated[Text, Field(max_length=500)] | None = None
    capture_method: str
    cancellation_reason: str | None = None
    # the charge of the last attempt to pay: its id, or the whole object
    latest_charge: str | dict[str, Any] | None = None
    last_payment_error: ErrorDetails | None = None
    # the PaymentMethod: the whole object in answers to our requests, its id in events
    payment_method: Method | str | None = None
    metadata: Metadata = Field(default_factory=dict)
    next_action: IntentAction | None = None

    @property
    def fee(self) -> Fee | None:
        """Return the fee of the latest charge, or None if Stripe has not booked the charge yet."""
        charge = self.latest_charge
        booked = charge.get("balance_transaction") if isinstance(charge, dict) else None
        try:
            return Fee.model_validate(booked)
        except ValidationError:
            return None

    @property
    def was_authorized(self) -> bool:
        """Tell whether a cancelled intent had been authorized before."""
        return self.latest_charge is not None and self.last_payment_error is None


class IntentList(Dto):
    data: tuple[Intent, ...]


class Refund(Dto):
    object: Literal["refund"]
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,250}$")]
    status: Literal["pending", "requires_action", "succeeded", "failed", "canceled"]
    amount: int
    currency: str
    failure_reason: Code | None = None
    metadata: Metadata = Field(default_factory=dict)


class RefundList(Dto):
    data: tuple[Refund, ...]
    has_more: bool


class DisputedIntent(Dto):
    object: Literal["payment_intent"]
    metadata: Metadata = Field(default_factory=dict)


class EvidenceDetails(Dto):
    # seconds since 1970
    due_by: Annotated[int, Field(ge=0, le=_MAX_TIME)] | None = None


class Dispute(Dto):
    """A dispute, with the disputed intent as an object."""

    object: Literal["dispute"]
    id: Text
    payment_intent: DisputedIntent | str | None = None
    status: Code
    reason: Code
    amount: int
    currency: str
    created: Annotated[int, Field(ge=0, le=_MAX_TIME)]
    evidence_details: EvidenceDetails | None = None


class BalanceSource(Dto):
    """The charge or refund that has caused a balance transaction."""

    object: Literal["charge", "refund"]
    id: Annotated[Text, Field(min_length=1, max_length=255)]
    amount: int
    # the captured part of a charge
    amount_captured: int | None = None
    currency: str
    payment_intent: Annotated[Text, Field(min_length=1, max_length=255)] | None = None
    # Stripe copies the metadata of an intent to its charge
    metadata: Metadata | None = None

    @property
    def moved_amount(self) -> int:
        return self.amount if self.amount_captured is None else self.amount_captured


class BalanceTransaction(Dto):
    """An entry of the account's balance. `fee` is in Stripe's minor units of `currency`."""

    id: Annotated[Text, Field(max_length=255)]
    created: Annotated[int, Field(ge=0, le=_MAX_TIME)]
    currency: str
    fee: int
    reporting_category: str
    # a BalanceSource, or another object
    source: dict[str, Any] | str | None = None

    @property
    def created_at(self) -> datetime:
        return datetime.fromtimestamp(self.created, UTC)


class BalanceTransactionList(Dto):
    data: tuple[BalanceTransaction, ...]
    has_more: bool
