"""Faults of a payment provider that the tests cause, each with its fault of the fake Stripe."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from tests.payments.stripe_server import Fault


class ProviderFault(Enum):
    TIMEOUT_BEFORE = auto()  # no answer; nothing was done
    TIMEOUT_AFTER = auto()
    SERVER_ERROR_AFTER = auto()  # a 500 after the effect
    RATE_LIMITED = auto()  # a 429; nothing was done
    SLOW_ANSWER = auto()  # the answer takes 30 seconds, longer than the shop waits
    DELAYED_REQUEST = auto()  # the request takes effect after the reconciliation
    RESET_BEFORE = auto()
    RESET_AFTER = auto()
    GARBAGE = auto()
    WRONG_AMOUNT = auto()
    WRONG_CURRENCY = auto()
    DUPLICATE_ID = auto()  # the answer has the id of another charge


F = ProviderFault
STRIPE_FAULTS: Final[Mapping[ProviderFault, Fault]] = {
    F.TIMEOUT_BEFORE: Fault.LOST_BEFORE,
    F.TIMEOUT_AFTER: Fault.LOST_AFTER,
    F.SERVER_ERROR_AFTER: Fault.SERVER_ERROR_AFTER,
    F.RATE_LIMITED: Fault.RATE_LIMITED,
    F.SLOW_ANSWER: Fault.SILENT_AFTER,
    F.DELAYED_REQUEST: Fault.DELAYED,
    F.RESET_BEFORE: Fault.RESET_BEFORE,
    F.RESET_AFTER: Fault.RESET_AFTER,
    F.GARBAGE: Fault.GARBAGE,
    F.WRONG_AMOUNT: Fault.WRONG_AMOUNT,
    F.WRONG_CURRENCY: Fault.WRONG_CURRENCY,
    F.DUPLICATE_ID: Fault.DUPLICATE_ID,
}
# faults after which the shop waits until its timeout
SLOW_FAULTS: Final = frozenset({F.SLOW_ANSWER, F.DELAYED_REQUEST})
# faults after which the provider has done nothing when the shop gives up
WITHOUT_EFFECT: Final = frozenset(
    {F.TIMEOUT_BEFORE, F.RATE_LIMITED, F.DELAYED_REQUEST, F.RESET_BEFORE}
)
