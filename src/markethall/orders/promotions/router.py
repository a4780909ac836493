"""HTTP API of promotions."""

from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Depends, Request, Response

from markethall.orders.configuration.contract import TooManyItems
from markethall.orders.configuration.router import ExpectedVersionsDep, IdempotencyDep, Staff
from markethall.orders.promotions.contract import (
    NewPromotion,
    PromotionChange,
    PromotionNotFound,
    PromotionQuery,
    Promotions,
    PromotionView,
    UsageLimitTooLow,
    VoucherCodeTaken,
)
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    VERSION_ERRORS,
)
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE, apply_if_none_match
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response, versioned_response
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page

router = APIRouter(prefix="/promotions", tags=["promotions"])


class Services(Protocol):
    def promotions(self) -> Promotions: ...


_from_orders: Final[FromContext[Services]] = FromContext("orders")
PromotionsDep = Annotated[
    Promotions, Depends(_from_orders(lambda container: container.promotions()))
]


@router.get(
    "",
    response_model=Page[PromotionView],
    summary="List promotions",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_promotions(
    ctx: Staff,
    query: Annotated[PromotionQuery, from_query(PromotionQuery)],
    promotions: PromotionsDep,
) -> Response:
    """Return promotions in the order in which they were created."""
    return json_response(await promotions.list_page(ctx, query))


@router.get(
    "/{promotion_id}",
    response_model=PromotionView,
    summary="Get a promotion",
    responses=problems(*AUTHENTICATED_ERRORS, PromotionNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_promotion(
    request: Request, ctx: Staff, promotion_id: Id, promotions: PromotionsDep
) -> Response:
    """Return a promotion. The `ETag` does not change with `used`."""
    view = await promotions.get(ctx, promotion_id)
    return apply_if_none_match(request, versioned_response(view))


@router.post(
    "",
    status_code=201,
    response_model=PromotionView,
    summary="Add a promotion",
    responses=problems(
        *AUTHENTICATED_ERRORS, *BODY_ERRORS, *IDEMPOTENCY_ERRORS, VoucherCodeTaken, TooManyItems
    ),
)
async def create_promotion(
    ctx: Staff, body: NewPromotion, promotions: PromotionsDep, idempotency: IdempotencyDep
) -> Response:
    """Create a voucher, or without a `code` a promotion that applies by itself."""
    return await idempotency.run(
        ctx,
        body,
        lambda attempt: promotions.create(ctx, body, attempt),
        created_response(lambda made: f"/promotions/{made.promotion_id}"),
    )


@router.patch(
    "/{promotion_id}",
    response_model=PromotionView,
    summary="Change a promotion",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *BODY_ERRORS,
        *VERSION_ERRORS,
        PromotionNotFound,
        VoucherCodeTaken,
        UsageLimitTooLow,
        TooManyItems,
    ),
)
async def change_promotion(
    ctx: Staff,
    promotion_id: Id,
    expected_versions: ExpectedVersionsDep,
    body: PromotionChange,
    promotions: PromotionsDep,
) -> Response:
    """Change a promotion by a JSON merge patch (RFC 7396). Orders that exist stay unchanged."""
    view = await promotions.change(ctx, promotion_id, body, expected_versions)
    return versioned_response(view)


@router.delete(
    "/{promotion_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a promotion",
    responses=problems(*AUTHENTICATED_ERRORS, *VERSION_ERRORS, PromotionNotFound),
)
async def delete_promotion(
    ctx: Staff, promotion_id: Id, expected_versions: ExpectedVersionsDep, promotions: PromotionsDep
) -> Response:
    """Delete a promotion. Orders keep its discount."""
    await promotions.delete(ctx, promotion_id, expected_versions)
    return Response(status_code=204)
