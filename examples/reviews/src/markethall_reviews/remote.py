"""The contract `Ratings` over HTTP: server routes, then the client."""

from uuid import UUID

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Dto
from markethall.shared.rpc.client import RpcClient
from markethall.shared.rpc.client_interceptor import CallGuard
from markethall.shared.rpc.server import InternalRoutes
from markethall_reviews.contract import Ratings, RatingView


class ProductRef(Dto):
    product_id: UUID


routes = InternalRoutes("reviews", lambda container: container.ratings())
routes.add(Ratings.get_rating, reference=ProductRef)


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
        return await self._guard.invoke(ctx, "get_rating", self._ratings.get_rating, product_id)
