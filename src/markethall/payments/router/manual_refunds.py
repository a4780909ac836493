"""Routes of the refunds that staff transfer by hand."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field

from markethall.payments.contract.api import RefundQuery
from markethall.payments.contract.errors import (
    InvalidPaymentTransition,
    RefundNotFound,
    UnsupportedByProvider,
)
from markethall.payments.contract.internal import RefundView
from markethall.payments.router.dependencies import IdempotencyDep, ManualRefundsDep, Staff
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, REQUIRED_IDEMPOTENCY_ERRORS
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.model import Id, RequestModel, Text
from markethall.shared.kernel.pagination import CursorInvalid, Page

router = APIRouter(tags=["payments"])


class MarkRefundPaidRequest(RequestModel):
    """A refund that staff have transferred. `reference` identifies it on the bank statement."""

    reference: Annotated[Text, Field(min_length=1, max_length=200, examples=["2026-11-30/18"])]


@router.get(
    "/payments/refunds",
    response_model=Page[RefundView],
    summary="List the refunds of all payments",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_all_refunds(
    ctx: Staff, query: Annotated[RefundQuery, from_query(RefundQuery)], refunds: ManualRefundsDep
) -> Response:
    """List refunds, the oldest first.

    With `status=pending` and `provider=manual` these are the refunds that staff have to transfer.
    """
    return json_response(await refunds.list_refunds(ctx, query))


@router.post(
    "/payments/{payment_id}/refunds/{refund_id}/mark-paid",
    response_model=RefundView,
    summary="Mark a refund as paid",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *REQUIRED_IDEMPOTENCY_ERRORS,
        RefundNotFound,
        UnsupportedByProvider,
        InvalidPaymentTransition,
    ),
)
async def mark_refund_paid(
    *,
    ctx: Staff,
    payment_id: Id,
    refund_id: Id,
    body: MarkRefundPaidRequest,
    refunds: ManualRefundsDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Record that the amount of a pending refund was transferred, for example by the bank.

    The amount then counts as refunded in the payment, the order and the ledger.
    """
    return await idempotency.run_with_key(
        ctx,
        body,
        lambda attempt: refunds.mark_refund_paid(
            ctx, payment_id, refund_id, body.reference, attempt
        ),
    )
