"""Routes of refunds."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field

from markethall.payments.contract.errors import (
    InvalidPaymentTransition,
    PaymentNotFound,
    RefundExceedsCaptured,
    RefundNotFound,
)
from markethall.payments.contract.internal import RefundView
from markethall.payments.router.dependencies import (
    IdempotencyDep,
    PaymentApiDep,
    PositiveMoney,
    Staff,
)
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, REQUIRED_IDEMPOTENCY_ERRORS
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.model import Id, RequestModel, Text
from markethall.shared.kernel.money import CurrencyMismatch, Money
from markethall.shared.kernel.pagination import CursorInvalid, Page, PageQuery

router = APIRouter(tags=["payments"])


class RefundRequest(RequestModel):
    """A refund of a payment. Without `amount`, the whole refundable amount is refunded."""

    amount: PositiveMoney | None = None
    reason: Annotated[Text, Field(min_length=1, max_length=500, examples=["damaged"])]

    @property
    def money(self) -> Money | None:
        return Money(**self.amount.model_dump()) if self.amount else None


@router.post(
    "/payments/{payment_id}/refunds",
    status_code=201,
    response_model=RefundView,
    summary="Refund a payment",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *REQUIRED_IDEMPOTENCY_ERRORS,
        PaymentNotFound,
        InvalidPaymentTransition,
        RefundExceedsCaptured,
        CurrencyMismatch,
    ),
)
async def create_refund(
    ctx: Staff, payment_id: Id, body: RefundRequest, api: PaymentApiDep, idempotency: IdempotencyDep
) -> Response:
    """Refund a payment. A retry with the same `Idempotency-Key` returns the same refund.

    The status is `unknown` while the provider does not answer; a job then looks up the outcome.
    """
    return await idempotency.run_with_key(
        ctx,
        body,
        lambda attempt: api.refund(ctx, payment_id, body.money, body.reason, attempt),
        created_response(lambda made: f"/payments/{made.payment_id}/refunds/{made.refund_id}"),
    )


@router.get(
    "/payments/{payment_id}/refunds",
    response_model=Page[RefundView],
    summary="List the refunds of a payment",
    responses=problems(*AUTHENTICATED_ERRORS, PaymentNotFound, CursorInvalid),
)
async def list_refunds(
    ctx: Staff,
    payment_id: Id,
    query: Annotated[PageQuery, from_query(PageQuery)],
    api: PaymentApiDep,
) -> Response:
    """Return the refunds of a payment, the oldest first."""
    return json_response(await api.list_refunds(ctx, payment_id, query))


@router.get(
    "/payments/{payment_id}/refunds/{refund_id}",
    response_model=RefundView,
    summary="Get a refund",
    responses=problems(*AUTHENTICATED_ERRORS, PaymentNotFound, RefundNotFound),
)
async def get_refund(ctx: Staff, payment_id: Id, refund_id: Id, api: PaymentApiDep) -> Response:
    """Return a refund."""
    return json_response(await api.get_refund(ctx, payment_id, refund_id))
