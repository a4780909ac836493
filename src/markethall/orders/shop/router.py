"""HTTP API of the shop."""

from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Depends, Request, Response

from markethall.orders.configuration.router import Anyone, ExpectedVersionsDep
from markethall.orders.shop.contract import Shop, ShopChange, ShopView
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, BODY_ERRORS, VERSION_ERRORS
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE, apply_if_none_match
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import versioned_response
from markethall.shared.http.route_policies import require_scope
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.scopes import SHOP_MANAGE

router = APIRouter(prefix="/shop", tags=["shop"])


class Services(Protocol):
    def shop(self) -> Shop: ...


_from_orders: Final[FromContext[Services]] = FromContext("orders")
ShopDep = Annotated[Shop, Depends(_from_orders(lambda container: container.shop()))]
Admin = Annotated[CallContext, require_scope(SHOP_MANAGE)]


@router.get(
    "",
    response_model=ShopView,
    summary="The shop",
    responses=problems(Unavailable) | NOT_MODIFIED_RESPONSE,
)
async def get_shop(request: Request, ctx: Anyone, shop: ShopDep) -> Response:
    """Return the settings of the shop. A shop that was never changed has the defaults."""
    view = await shop.get(ctx)
    return apply_if_none_match(request, versioned_response(view, is_public=True))


@router.patch(
    "",
    response_model=ShopView,
    summary="Change the shop",
    responses=problems(*AUTHENTICATED_ERRORS, *BODY_ERRORS, *VERSION_ERRORS),
)
async def change_shop(
    ctx: Admin, expected_versions: ExpectedVersionsDep, body: ShopChange, shop: ShopDep
) -> Response:
    """Change the shop by a JSON merge patch (RFC 7396). New orders use the new settings.

    With `prices_include_tax`, the prices of products and of shipping contain the tax; otherwise it
    is added to them.
    """
    view = await shop.change(ctx, body, expected_versions)
    return versioned_response(view)
