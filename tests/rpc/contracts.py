"""The three contracts that other contexts call, with sample values for each method.

No field of a sample has its default value, so that a test fails if a field is lost on the way.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter

import markethall.inventory.contract
import markethall.payments.contract
import markethall.users.contract
from markethall.contexts import topology
from markethall.inventory.contract import (
    Consume,
    Extend,
    Inventory,
    ListOffers,
    ListReservationStates,
    MergeReservations,
    ProductOffer,
    ProductOffers,
    ReleasePart,
    RequestedLine,
    ReservationLineView,
    ReservationState,
    ReservationStates,
    ReservationStatus,
    ReservationView,
    Reserve,
    Restock,
)
from markethall.payments.contract import (
    ActivatePayments,
    CapturePayment,
    ListPaymentStates,
    OpenPayment,
    Payments,
    PaymentState,
    PaymentStatus,
    PaymentSummary,
    RefundPayment,
    RefundStatus,
    VoidPayment,
)
from markethall.payments.contract.internal import PaymentList, PaymentStates, RefundView
from markethall.shared.composition.parts import InternalApi
from markethall.shared.kernel import errors, money
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard
from markethall.users.contract import Customer, IssueOrderToken, OrderToken, Users

TIME: Final = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC)
AMOUNT: Final = Money(amount=123456789012345, currency="KWD")
LINES: Final = (
    RequestedLine(product_id=new_id(), quantity=7),
    RequestedLine(product_id=new_id(), quantity=1000000),
)


@dataclass(frozen=True)
class Contract:
    """A contract. `samples` maps each method to a sample argument and a sample result."""

    context: str
    module: Any
    protocol: type[Any]
    samples: Mapping[str, tuple[Any, Any]]

    @property
    def _api(self) -> InternalApi[Any, Any]:
        api = topology().contexts[self.context].load_parts().internal_api
        assert api
        return api

    @property
    def router(self) -> APIRouter:
        return self._api.routes.router

    @property
    def remote(self) -> Callable[[RpcClient], Any]:
        return self._api.remote

    @property
    def guarded(self) -> Callable[[Any, CallGuard], Any]:
        return self._api.guarded

    def documented_errors(self, method: str) -> set[type[DomainError]]:
        """Return the errors that the docstring of the method names."""
        names = re.findall(r"\b[A-Z][A-Za-z]+\b", getattr(self.protocol, method).__doc__ or "")
        modules = (self.module, money, errors)
        found = (getattr(module, name, None) for name in names for module in modules)
        return {
            error_type
            for error_type in found
            if isinstance(error_type, type) and issubclass(error_type, DomainError)
        }


def methods_of(protocol: type[Any]) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}


_LINE: Final = ReservationLineView(
    product_id=new_id(),
    sku="TEA-1",
    name="Sencha 煎茶",
    unit_price=AMOUNT,
    quantity=3,
    consumed=1,
    released=2,
)
_RESERVATION: Final = ReservationView(
    reservation_id=new_id(),
    order_id=new_id(),
    status=ReservationStatus.COMMITTED,
    lines=(_LINE, _LINE.model_copy(update={"sku": "CUP"})),
    expires_at=TIME,
)
_TOMBSTONE: Final = ReservationView(
    reservation_id=new_id(),
    order_id=None,
    status=ReservationStatus.RELEASED,
    lines=(),
    expires_at=TIME,
)
_PAYMENT: Final = PaymentSummary(
    payment_id=new_id(),
    order_id=new_id(),
    user_id=new_id(),
    status=PaymentStatus.REQUIRES_ACTION,
    amount=AMOUNT,
    authorized=AMOUNT,
    captured=Money.zero("KWD"),
    refunded=Money(amount=-1, currency="KWD"),
    provider="sandbox",
    failure_code="card_declined",
    next_action="https://bank.example/?a=1&b=%20",
    expires_at=TIME,
    created_at=TIME,
    version=9,
)
_REFUND: Final = RefundView(
    refund_id=new_id(),
    payment_id=new_id(),
    order_id=new_id(),
    amount=AMOUNT,
    status=RefundStatus.UNKNOWN,
    reason='"quoted"\n',
    failure_code="late",
    created_at=TIME,
    provider="manual",
    provider_reference="2026-11-30/17",
)

CONTRACTS: Final[Mapping[str, Contract]] = {
    "users": Contract(
        "users",
        markethall.users.contract,
        Users,
        {
            "get_active_customer": (
                new_id(),
                Customer(user_id=new_id(), email="ä@example.com", full_name="Ada", is_guest=True),
            ),
            "issue_order_token": (
                IssueOrderToken(order_id=new_id(), owner_id=new_id()),
                OrderToken(order_token="a token", expires_in=3600),
            ),
        },
    ),
    "inventory": Contract(
        "inventory",
        markethall.inventory.contract,
        Inventory,
        {
            "reserve": (
                Reserve(
                    reservation_id=new_id(),
                    order_id=new_id(),
                    customer_id=new_id(),
                    lines=LINES,
                    expires_at=TIME,
                    limited=True,
                    currency="CHF",
                ),
                _RESERVATION,
            ),
            "extend": (Extend(reservation_id=new_id(), expires_at=TIME), _RESERVATION),
            "commit": (new_id(), _RESERVATION),
            "consume": (
                Consume(reservation_id=new_id(), fulfilment_id=new_id(), lines=LINES),
                _RESERVATION,
            ),
            "release_part": (
                ReleasePart(reservation_id=new_id(), release_id=new_id(), lines=LINES),
                _RESERVATION,
            ),
            "release": (new_id(), _TOMBSTONE),
            "merge": (
                MergeReservations(reservation_id=new_id(), merged_reservation_id=new_id()),
                _RESERVATION,
            ),
            "restock": (Restock(restock_id=new_id(), lines=LINES), None),
            "list_reservation_states": (
                ListReservationStates(
                    after_order_id=new_id(), after_reservation_id=new_id(), limit=7
                ),
                ReservationStates(
                    items=(
                        ReservationState(
                            reservation_id=new_id(),
                            order_id=new_id(),
                            status=ReservationStatus.COMMITTED,
                        ),
                    )
                ),
            ),
            "list_offers": (
                ListOffers(product_ids=(new_id(), new_id()), currency="KWD"),
                ProductOffers(
                    items=(
                        ProductOffer(
                            product_id=new_id(),
                            sku="TEA-1",
                            name='"Tee" für Ä',
                            unit_price=AMOUNT,
                            available=-3,
                            tax_class="reduced",
                            weight_grams=0,
                            category="tea",
                            tags=("a", "ä"),
                        ),
                    )
                ),
            ),
        },
    ),
    "payments": Contract(
        "payments",
        markethall.payments.contract,
        Payments,
        {
            "open": (
                OpenPayment(
                    payment_id=new_id(),
                    order_id=new_id(),
                    user_id=new_id(),
                    amount=AMOUNT,
                    expires_at=TIME,
                    country="AT",
                    payment_method="sandbox_ok",
                    replaces=new_id(),
                    is_additional=True,
                ),
                _PAYMENT,
            ),
            "activate": (
                ActivatePayments(payment_ids=(new_id(), new_id())),
                PaymentList(items=(_PAYMENT, _PAYMENT.model_copy(update={"payment_id": new_id()}))),
            ),
            "cancel": (new_id(), None),
            "list_payment_states": (
                ListPaymentStates(after_payment_id=new_id(), limit=7),
                PaymentStates(
                    items=(
                        PaymentState(
                            payment_id=new_id(),
                            order_id=new_id(),
                            status=PaymentStatus.CAPTURED,
                            amount=AMOUNT,
                            captured=AMOUNT,
                            refunded=Money.zero("KWD"),
                            settled_at=TIME,
                        ),
                    )
                ),
            ),
            "capture_due": (
                CapturePayment(
                    payment_id=new_id(),
                    capture_id=new_id(),
                    due=Money(amount=1, currency="KWD"),
                    total=AMOUNT,
                ),
                _PAYMENT,
            ),
            "void": (VoidPayment(payment_id=new_id(), void_id=new_id()), _PAYMENT),
            "refund": (
                RefundPayment(
                    payment_id=new_id(), refund_id=new_id(), amount=AMOUNT, reason="broken"
                ),
                _REFUND,
            ),
        },
    ),
}
METHODS: Final = tuple(
    (context, method) for context, contract in CONTRACTS.items() for method in contract.samples
)
_ERRORS: Final = [value for value in vars(errors).values() if isinstance(value, type)]
SYSTEM: Final = tuple(
    error_type
    for error_type in _ERRORS
    if issubclass(error_type, DomainError) and error_type is not DomainError
)


class RecordingService:
    """A service that records its calls, and returns the sample result or raises an error."""

    def __init__(self, contract: Contract, error: BaseException | None = None) -> None:
        self._contract = contract
        self._error = error
        self.calls: list[tuple[str, CallContext, Any]] = []

    def __getattr__(self, method: str) -> Callable[[CallContext, Any], Any]:
        _, result = self._contract.samples[method]

        async def call(ctx: CallContext, argument: Any) -> Any:
            self.calls.append((method, ctx, argument))
            if self._error:
                raise self._error
            return result

        return call
