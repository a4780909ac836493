"""HTTP API of reviews."""

from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Depends, Query, Response

from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, IDEMPOTENCY_ERRORS
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import (
    IdempotencyRunner,
    created_response,
    idempotency_runner,
)
from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import json_response
from markethall.shared.http.route_policies import public, require_scope
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.pagination import CursorInvalid, Page
from markethall.shared.kernel.scopes import ORDERS
from markethall.users.contract import UserInactive, UserNotFound
from markethall_reviews.contract import (
    AlreadyReviewed,
    NewReview,
    ProductNotReceived,
    ReviewApi,
    ReviewQuery,
    ReviewView,
)


class Services(Protocol):
    """The services that these routes call."""

    def reviews(self) -> ReviewApi: ...


_from_reviews: Final[FromContext[Services]] = FromContext("reviews")
ReviewsDep = Annotated[ReviewApi, Depends(_from_reviews(lambda container: container.reviews()))]
IdempotencyDep = Annotated[IdempotencyRunner, Depends(idempotency_runner("reviews"))]

router = APIRouter(tags=["reviews"])


@router.post(
    "/reviews",
    status_code=201,
    response_model=ReviewView,
    summary="Review a received product",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *IDEMPOTENCY_ERRORS,
        ProductNotReceived,
        AlreadyReviewed,
        UserNotFound,
        UserInactive,
    ),
)
async def create_review(
    ctx: Annotated[CallContext, require_scope(ORDERS)],
    body: NewReview,
    reviews: ReviewsDep,
    idempotency: IdempotencyDep,
) -> Response:
    return await idempotency.run(
        ctx,
        body,
        lambda command: reviews.create(ctx, body, command),
        created_response(lambda view: f"/reviews?product_id={view.product_id}"),
    )


@router.get(
    "/reviews",
    response_model=Page[ReviewView],
    summary="Reviews of a product",
    responses=problems(CursorInvalid),
)
async def list_reviews(
    ctx: Annotated[CallContext, public()],
    query: Annotated[ReviewQuery, Query()],
    reviews: ReviewsDep,
) -> Response:
    return json_response(await reviews.list_reviews(ctx, query))
