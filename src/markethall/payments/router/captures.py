"""Routes that capture or void an authorized payment."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Response
from pydantic import Field, StrictBool

from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.errors import (
    CaptureExceedsAuthorized,
    InvalidPaymentTransition,
    PaymentInProgress,
    PaymentNotFound,
    UnsupportedByProvider,
)
from markethall.payments.router.dependencies import (
    IdempotencyDep,
    PaymentApiDep,
    PositiveMoney,
    Staff,
)
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, REQUIRED_IDEMPOTENCY_ERRORS
from markethall.shared.http.problem_details import problems
from markethall.shared.idempotency.records import IdempotentCommand, StoredResponse
from markethall.shared.kernel.model import Id, RequestModel
from markethall.shared.kernel.money import CurrencyMismatch, Money

router = APIRouter(tags=["payments"])

_ERRORS: Final = (
    *AUTHENTICATED_ERRORS,
    *REQUIRED_IDEMPOTENCY_ERRORS,
    PaymentNotFound,
    InvalidPaymentTransition,
    PaymentInProgress,
)


_UNKNOWN_OUTCOME_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": PaymentView, "description": "The provider gave no answer yet"}
}


class CaptureRequest(RequestModel):
    """A capture. Without `amount`, the uncaptured rest is captured."""

    amount: PositiveMoney | None = None
    final: Annotated[
        StrictBool,
        Field(description="Release what is not captured; no other capture is possible then"),
    ] = False

    @property
    def money(self) -> Money | None:
        return Money(**self.amount.model_dump()) if self.amount else None


@router.post(
    "/payments/{payment_id}/capture",
    response_model=PaymentView,
    summary="Capture a payment",
    responses=_UNKNOWN_OUTCOME_RESPONSE
    | problems(*_ERRORS, UnsupportedByProvider, CaptureExceedsAuthorized, CurrencyMismatch),
)
async def capture_payment(
    ctx: Staff,
    payment_id: Id,
    api: PaymentApiDep,
    idempotency: IdempotencyDep,
    body: CaptureRequest | None = None,
) -> Response:
    """Take money of an authorized payment. A retry with the same `Idempotency-Key` takes no more.

    The status stays `authorized` while more can be captured, and becomes `captured` with the last
    capture: the one that takes the rest, a `final` one, or any capture of a provider that captures
    an authorization only once. The uncaptured rest is then released. `authorized` minus `captured`
    can still be captured. If the provider rejects the capture, the status stays `authorized`, and
    `failure_code` says why. While the provider gives no answer, a retry with the same key asks
    again, and any other capture or void is 409 `payments.in_progress`.
    """
    body = body or CaptureRequest()

    change = _Change(
        lambda attempt: api.capture(ctx, payment_id, body.money, attempt, is_final=body.final)
    )
    return await idempotency.run_with_key(ctx, body, change.run, change.to_response)


@router.post(
    "/payments/{payment_id}/void",
    response_model=PaymentView,
    summary="Void a payment",
    responses=_UNKNOWN_OUTCOME_RESPONSE | problems(*_ERRORS),
)
async def void_payment(
    ctx: Staff, payment_id: Id, api: PaymentApiDep, idempotency: IdempotencyDep
) -> Response:
    """Release the uncaptured rest of an authorized payment.

    The status is then `voided`, and the order is cancelled if nothing of it is shipped. After a
    capture the status is `captured`, and the shop keeps the captured amount.
    """

    change = _Change(lambda attempt: api.void(ctx, payment_id, attempt))
    return await idempotency.run_with_key(ctx, None, change.run, change.to_response)


class _Change:
    """A capture or void. Its response is 202 while the provider gives no answer, else 200."""

    def __init__(self, command: Callable[[IdempotentCommand], Awaitable[PaymentView]]) -> None:
        self._command = command
        self._has_outcome = True

    async def run(self, attempt: IdempotentCommand) -> PaymentView:
        payment = await self._command(attempt)
        self._has_outcome = attempt.is_final
        return payment

    def to_response(self, payment: PaymentView) -> StoredResponse:
        return StoredResponse(
            status=200 if self._has_outcome else 202, body=payment.model_dump_json()
        )
