"""The contract `Ratings` over HTTP: server routes, then the client."""

from typing import Annotated, Final, Protocol
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard
from markethall.shared.rpc.server import FORBID_UNKNOWN_FIELDS, require_service_token
from markethall_reviews.contract import Ratings, RatingView

router = APIRouter(prefix="/internal/reviews", tags=["internal"])


class ProvidesRatings(Protocol):
    def ratings(self) -> Ratings: ...


_from_reviews: Final[FromContext[ProvidesRatings]] = FromContext("reviews")
RatingsDep = Annotated[Ratings, Depends(_from_reviews(lambda container: container.ratings()))]


class ProductRef(Dto):
    product_id: UUID


@router.post("/get_rating", response_model=RatingView)
async def get_rating(
    ctx: Annotated[CallContext, require_service_token("reviews.get_rating")],
    product: Annotated[ProductRef, FORBID_UNKNOWN_FIELDS],
    ratings: RatingsDep,
) -> Response:
    return json_response(await ratings.get_rating(ctx, product.product_id))


class RemoteRatings:
    """Client of reviews in another deployment."""

    def __init__(self, rpc_client: RpcClient) -> None:
        self._rpc_client = rpc_client

    async def get_rating(self, ctx: CallContext, product_id: UUID) -> RatingView:
        return await self._rpc_client.call(
            ctx, "get_rating", ProductRef(product_id=product_id), RatingView
        )


class GuardedRatings:
    """`Ratings` behind a call guard, which makes the same checks for local and remote calls."""

    def __init__(self, ratings: Ratings, guard: CallGuard) -> None:
        self._ratings = ratings
        self._guard = guard

    async def get_rating(self, ctx: CallContext, product_id: UUID) -> RatingView:
        return await self._guard.invoke(
            ctx, "get_rating", lambda ctx: self._ratings.get_rating(ctx, product_id)
        )
