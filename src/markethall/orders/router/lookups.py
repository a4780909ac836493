"""HTTP API of orders: the lookup of an order by a buyer without a token."""

from typing import Annotated

from fastapi import APIRouter, Response

from markethall.orders.contract.lookups import LookUpOrder
from markethall.orders.router.dependencies import OrderLookupsDep
from markethall.shared.http.common_errors import BODY_ERRORS
from markethall.shared.http.problem_details import problems
from markethall.shared.http.route_policies import public
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import TooManyRequests, Unavailable

router = APIRouter(tags=["orders"])


@router.post(
    "/orders/lookup",
    status_code=202,
    response_class=Response,
    summary="Ask for a link to an order",
    responses=problems(*BODY_ERRORS, TooManyRequests, Unavailable),
)
async def look_up_order(
    ctx: Annotated[CallContext, public()], body: LookUpOrder, lookups: OrderLookupsDep
) -> Response:
    """Send a link to the e-mail address of an order, if the number and the address are right.

    The response is always the same. The link has a token for this order only, which is valid for an
    hour: its holder sees, pays, cancels and returns the order like the buyer.
    """
    await lookups.request(ctx, body)
    return Response(status_code=202, headers={"cache-control": "no-store"})
