"""Routes of saved payment methods."""

from typing import Annotated

from fastapi import APIRouter, Response

from markethall.payments.contract.api import SavedPaymentMethodView
from markethall.payments.contract.errors import SavedPaymentMethodNotFound
from markethall.payments.router.dependencies import Owner, PaymentApiDep
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page, PageQuery

router = APIRouter(tags=["payments"])


@router.get(
    "/saved-payment-methods",
    response_model=Page[SavedPaymentMethodView],
    summary="List saved payment methods",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_saved_payment_methods(
    ctx: Owner, query: Annotated[PageQuery, from_query(PageQuery)], api: PaymentApiDep
) -> Response:
    """List the caller's saved methods, the newest first.

    A method is saved by a confirm with `save_payment_method`. To pay with it, confirm with its
    `saved_payment_method_id` as `payment_method`.
    """
    return json_response(await api.list_saved_methods(ctx, query))


@router.delete(
    "/saved-payment-methods/{saved_payment_method_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a saved payment method",
    responses=problems(*AUTHENTICATED_ERRORS, SavedPaymentMethodNotFound),
)
async def delete_saved_payment_method(
    ctx: Owner, saved_payment_method_id: Id, api: PaymentApiDep
) -> None:
    """Delete a saved method, here and at the provider."""
    await api.delete_saved_method(ctx, saved_payment_method_id)


@router.delete(
    "/saved-payment-methods",
    status_code=204,
    response_class=Response,
    summary="Delete all saved payment methods",
    responses=problems(*AUTHENTICATED_ERRORS),
)
async def delete_saved_payment_methods(ctx: Owner, api: PaymentApiDep) -> None:
    """Delete all saved methods of the caller, here and at the provider."""
    await api.delete_saved_methods(ctx)
