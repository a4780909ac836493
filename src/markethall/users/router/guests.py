"""HTTP API of guests, who are buyers without an account, and of their claims by users."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field

from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, IDEMPOTENCY_ERRORS
from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import json_response
from markethall.shared.http.route_policies import public, require_scope
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.model import RequestModel
from markethall.shared.kernel.scopes import PROFILE
from markethall.users.contract import (
    BadGuestToken,
    GuestAlreadyClaimed,
    GuestClaimView,
    GuestTokens,
    UserInactive,
    UserNotFound,
)
from markethall.users.router.dependencies import GuestsDep, IdempotencyDep, SessionsDep
from markethall.users.router.fields import GuestToken

router = APIRouter(tags=["users"])

_NO_STORE_HEADERS = {"cache-control": "no-store", "pragma": "no-cache"}


class ClaimGuestRequest(RequestModel):
    guest_token: Annotated[GuestToken, Field(repr=False)]


@router.post(
    "/guests",
    status_code=201,
    response_model=GuestTokens,
    summary="Create a guest",
    responses=problems(Unavailable),
)
async def create_guest(ctx: Annotated[CallContext, public()], guests: GuestsDep) -> Response:
    """Return the tokens of a new guest, a buyer without an account.

    The tokens have the scopes `orders` and `payments`. `POST /token` refreshes them. A guest whose
    tokens are not refreshed for 90 days (a setting) is deleted, but not its orders.
    """
    tokens = await guests.create_guest(ctx)
    return json_response(tokens, status=201, headers=_NO_STORE_HEADERS)


@router.post(
    "/users/me/claims",
    response_model=GuestClaimView,
    summary="Take over the orders of a guest",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *IDEMPOTENCY_ERRORS,
        UserInactive,
        UserNotFound,
        BadGuestToken,
        GuestAlreadyClaimed,
    ),
)
async def claim_guest(
    ctx: Annotated[CallContext, require_scope(PROFILE)],
    body: ClaimGuestRequest,
    guests: GuestsDep,
    sessions: SessionsDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Give the orders, payments and saved payment methods of a guest to the caller.

    `guest_token` is the access token or the refresh token of the guest, which must be valid. The
    session of the guest ends at once. The orders and payments change their owner soon after the
    response. A repeated claim changes nothing.
    """
    fingerprint = await sessions.compute_fingerprint(body.guest_token)
    return await idempotency.run(
        ctx,
        body.model_copy(update={"guest_token": fingerprint}),
        lambda attempt: guests.claim_guest(ctx, body.guest_token, attempt),
    )
