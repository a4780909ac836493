"""What the world may ask of payments."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from markethall.payments.contract import (
    AccountBalance,
    InvalidPaymentTransition,
    LedgerReport,
    Operation,
    Payment,
    PaymentDesk,
    PaymentInProgress,
    PaymentNotFound,
    PaymentQuery,
    PaymentStatus,
    Posting,
    PostingQuery,
    Refund,
    RefundExceedsCaptured,
    RefundNotFound,
    UnknownMethod,
    UnknownProvider,
    WebhookReceipt,
    WebhookSignatureInvalid,
)
from markethall.shared.auth import PAYMENTS, PAYMENTS_MANAGE, allow, anyone
from markethall.shared.call import Call
from markethall.shared.errors import (
    Forbidden,
    Invalid,
    Malformed,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from markethall.shared.http import (
    MONEY,
    conditional,
    created,
    from_container,
    once,
    problems,
    ready,
)
from markethall.shared.idempotency import (
    Answer,
    Attempt,
    InFlight,
    KeyInvalid,
    KeyMissing,
    Keys,
    PayloadMismatch,
)
from markethall.shared.model import MAX_AMOUNT, Body, Id, Int, Text
from markethall.shared.money import Currency, CurrencyMismatch, Money
from markethall.shared.pages import CursorInvalid, Page, PageQuery
from markethall.shared.versions import etag

router = APIRouter(tags=["payments"])

DeskDep = Annotated[PaymentDesk, Depends(from_container("payment_desk"))]
KeysDep = Annotated[Keys, Depends(from_container("payments_keys"))]
Anyone = Annotated[Call, anyone()]
Owner = Annotated[Call, allow(PAYMENTS)]
Staff = Annotated[Call, allow(PAYMENTS_MANAGE)]
OwnerOrStaff = Annotated[Call, allow(PAYMENTS, PAYMENTS_MANAGE)]

# every route that needs a token, or reads the database
_GUARDED: Final = (Unauthenticated, Forbidden, Invalid, Unavailable)
_KEYED: Final = (KeyMissing, KeyInvalid, InFlight, PayloadMismatch)


_UNANSWERED: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": Payment, "description": "The provider gave no answer yet: unknown"}
}


class Confirmation(Body):
    payment_method: Annotated[Text, Field(min_length=1, max_length=100, examples=["sandbox_ok"])]


class PositiveMoney(Body):
    amount: Annotated[Int, Field(ge=1, le=MAX_AMOUNT, examples=[500])]
    currency: Currency


class RefundRequest(Body):
    """Without an amount: all that is left."""

    amount: PositiveMoney | None = None
    reason: Annotated[Text, Field(min_length=1, max_length=500, examples=["damaged"])]

    @property
    def money(self) -> Money | None:
        return Money(**self.amount.model_dump()) if self.amount else None


# Paying


@router.get(
    "/payments",
    response_model=Page[Payment],
    summary="Payments",
    responses=problems(*_GUARDED, CursorInvalid),
)
async def payments(
    call: OwnerOrStaff, query: Annotated[PaymentQuery, Query()], desk: DeskDep
) -> Response:
    """One's own; all of them for staff."""
    return ready(await desk.payments(call, query))


@router.get(
    "/payments/{payment_id}",
    response_model=Payment,
    summary="A payment",
    responses=problems(*_GUARDED, PaymentNotFound),
)
async def payment(request: Request, call: OwnerOrStaff, payment_id: Id, desk: DeskDep) -> Response:
    found = await desk.payment(call, payment_id)
    return conditional(request, ready(found, headers={"etag": etag(found.version)}))


@router.post(
    "/payments/{payment_id}/confirm",
    response_model=Payment,
    summary="Pay",
    responses=_UNANSWERED
    | problems(
        *_GUARDED, *_KEYED, PaymentNotFound, UnknownMethod, InvalidPaymentTransition,
        PaymentInProgress,
    ),
)  # fmt: skip
async def confirm(
    request: Request,
    *,
    call: Owner,
    payment_id: Id,
    body: Confirmation,
    desk: DeskDep,
    keys: KeysDep,
) -> Response:
    """Take the money, once. A decline is an answer: `failed`, and may be tried again.

    The sandbox knows sandbox_ok, sandbox_declined, sandbox_insufficient_funds,
    sandbox_action_required, sandbox_timeout_before, sandbox_timeout_after, sandbox_slow and
    sandbox_webhook_first.
    """

    async def effect(attempt: Attempt) -> Payment:
        return await desk.confirm(call, payment_id, body.payment_method, attempt)

    return await once(request, call, body, keys, effect, _confirmed, required=True, kept_for=MONEY)


@router.get(
    "/payments/{payment_id}/operations",
    response_model=Page[Operation],
    summary="What the provider was asked",
    responses=problems(*_GUARDED, PaymentNotFound, CursorInvalid),
)
async def operations(
    call: OwnerOrStaff, payment_id: Id, query: Annotated[PageQuery, Query()], desk: DeskDep
) -> Response:
    return ready(await desk.operations(call, payment_id, query))


# Giving back


@router.post(
    "/payments/{payment_id}/refunds",
    status_code=201,
    response_model=Refund,
    summary="Refund",
    responses=problems(
        *_GUARDED, *_KEYED, PaymentNotFound, InvalidPaymentTransition, RefundExceedsCaptured,
        CurrencyMismatch,
    ),
)  # fmt: skip
async def refund(
    request: Request,
    *,
    call: Staff,
    payment_id: Id,
    body: RefundRequest,
    desk: DeskDep,
    keys: KeysDep,
) -> Response:
    """Give money back, once. `unknown` is settled with the provider by itself."""

    async def effect(attempt: Attempt) -> Refund:
        return await desk.refund(call, payment_id, body.money, body.reason, attempt)

    present = created(lambda made: f"/payments/{made.payment_id}/refunds/{made.refund_id}")
    return await once(request, call, body, keys, effect, present, required=True, kept_for=MONEY)


@router.get(
    "/payments/{payment_id}/refunds",
    response_model=Page[Refund],
    summary="Refunds of a payment",
    responses=problems(*_GUARDED, PaymentNotFound, CursorInvalid),
)
async def refunds(
    call: Staff, payment_id: Id, query: Annotated[PageQuery, Query()], desk: DeskDep
) -> Response:
    return ready(await desk.refunds(call, payment_id, query))


@router.get(
    "/payments/{payment_id}/refunds/{refund_id}",
    response_model=Refund,
    summary="A refund",
    responses=problems(*_GUARDED, PaymentNotFound, RefundNotFound),
)
async def refund_of(call: Staff, payment_id: Id, refund_id: Id, desk: DeskDep) -> Response:
    return ready(await desk.refund_of(call, payment_id, refund_id))


# News from the provider

_RAW_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The event, signed as it is by the header `Sandbox-Signature`.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


@router.post(
    "/payments/webhooks/{provider}",
    response_model=WebhookReceipt,
    summary="A provider's webhook",
    responses=problems(
        UnknownProvider, WebhookSignatureInvalid, Malformed, TooLarge, UnsupportedMediaType,
        Invalid, Unavailable,
    ),
    openapi_extra=_RAW_BODY,
)  # fmt: skip
async def webhook(
    request: Request,
    call: Anyone,
    provider: Annotated[Text, Field(max_length=50, examples=["sandbox"])],
    desk: DeskDep,
) -> Response:
    """200 once the raw event is stored; a duplicate too."""
    body = await request.body()
    return ready(await desk.webhook(call, provider, request.headers, body))


# The ledger


class Accounts(BaseModel):
    items: tuple[AccountBalance, ...]


@router.get(
    "/transactions",
    response_model=Page[Posting],
    summary="The ledger's postings",
    responses=problems(*_GUARDED, CursorInvalid),
)
async def transactions(
    call: Staff, query: Annotated[PostingQuery, Query()], desk: DeskDep
) -> Response:
    """The newest first. A debit is positive, a credit negative."""
    return ready(await desk.postings(call, query))


@router.get(
    "/ledger/accounts",
    response_model=Accounts,
    summary="The ledger's balances",
    responses=problems(*_GUARDED),
)
async def accounts(call: Staff, desk: DeskDep) -> Response:
    return ready(Accounts(items=await desk.accounts(call)))


@router.get(
    "/ledger/verify",
    response_model=LedgerReport,
    summary="Does the ledger balance",
    responses=problems(*_GUARDED),
)
async def verify(call: Staff, desk: DeskDep) -> Response:
    return ready(await desk.verify(call))


def _confirmed(found: Payment) -> Answer:
    """202 while nobody knows."""
    status = 202 if found.status is PaymentStatus.UNKNOWN else 200
    return Answer(status=status, body=found.model_dump_json())
