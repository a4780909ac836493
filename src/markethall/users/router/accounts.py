"""Routes of accounts, and of guests, who are buyers without an account."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS, IDEMPOTENCY_ERRORS
from markethall.shared.http.conditional_requests import (
    NOT_MODIFIED_RESPONSE,
    apply_if_none_match,
    if_match_optional,
)
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import json_response, versioned_response
from markethall.shared.http.route_policies import public, require_scope
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.email_address import EmailAddress
from markethall.shared.kernel.errors import (
    Overloaded,
    PreconditionFailed,
    Unavailable,
    ValidationFailed,
)
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.model import RequestModel
from markethall.shared.kernel.scopes import PROFILE
from markethall.users.contract import (
    AccessView,
    BadGuestToken,
    ChangeProfile,
    GuestAlreadyClaimed,
    GuestClaimView,
    GuestTokens,
    Register,
    UserInactive,
    UserNotFound,
    UserView,
)
from markethall.users.contract.errors import (
    BadCredentials,
    EmailTaken,
    PasswordUnacceptable,
    UsernameTaken,
)
from markethall.users.router.dependencies import AccountsDep, GuestsDep, IdempotencyDep, SessionsDep
from markethall.users.router.fields import (
    FullName,
    GuestToken,
    NewPassword,
    Password,
    Tags,
    Username,
)

router = APIRouter(tags=["users"])

_NO_STORE_HEADERS: Final = {"cache-control": "no-store", "pragma": "no-cache"}


class RegisterRequest(RequestModel):
    username: Username
    email: EmailAddress
    password: Annotated[NewPassword, Field(repr=False)]
    full_name: FullName | None = None
    tags: Tags = ()
    guest_token: Annotated[
        GuestToken | None,
        Field(repr=False, description="A token of the guest whose orders the new user takes over"),
    ] = None


class ChangeProfileRequest(RequestModel):
    """A change of a profile. Fields that are left out stay unchanged.

    A `full_name` of null removes the name.
    """

    full_name: FullName | None = None
    tags: Tags = ()


class ChangePasswordRequest(RequestModel):
    current_password: Annotated[Password, Field(repr=False)]
    new_password: Annotated[NewPassword, Field(repr=False)]


@router.post(
    "/users",
    status_code=201,
    response_model=UserView,
    summary="Register",
    responses=problems(
        *IDEMPOTENCY_ERRORS,
        UsernameTaken,
        EmailTaken,
        BadGuestToken,
        GuestAlreadyClaimed,
        ValidationFailed,
        PasswordUnacceptable,
        Overloaded,
        Unavailable,
    ),
)
async def register_user(
    ctx: Annotated[CallContext, public()],
    body: RegisterRequest,
    accounts: AccountsDep,
    sessions: SessionsDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Create an account. It is active at once, with the role `customer`.

    With `guest_token`, the orders and payments of the guest belong to the new user soon after the
    response, and the session of the guest ends.
    """
    command = Register(**body.model_dump())
    # A hash of the body is stored with the idempotency key. If the hashed body contained the plain
    # password, an attacker could guess the password from the stored hash.
    secrets = {"password": body.password, "guest_token": body.guest_token}
    fingerprints = {
        name: await sessions.compute_fingerprint(secret)
        for name, secret in secrets.items()
        if secret is not None
    }
    fingerprinted_body = body.model_copy(update=fingerprints)
    return await idempotency.run(
        ctx,
        fingerprinted_body,
        lambda attempt: accounts.register(ctx, command, attempt),
        created_response(lambda account: f"/users/{account.user_id}"),
    )


@router.get(
    "/users/me",
    response_model=UserView,
    summary="Get my account",
    responses=problems(*AUTHENTICATED_ERRORS, UserInactive, UserNotFound) | NOT_MODIFIED_RESPONSE,
)
async def get_me(
    request: Request, ctx: Annotated[CallContext, require_scope(PROFILE)], accounts: AccountsDep
) -> Response:
    """Return the account of the token."""
    return apply_if_none_match(request, versioned_response(await accounts.get_me(ctx)))


@router.get(
    "/users/me/access",
    response_model=AccessView,
    summary="Get my current roles and scopes",
    responses=problems(*AUTHENTICATED_ERRORS),
)
async def get_my_access(
    ctx: Annotated[CallContext, require_scope(PROFILE)], sessions: SessionsDep
) -> Response:
    """Return the current roles and scopes, which may differ from those of the access token.

    Respond with 401 if the account is disabled or the session has ended.
    """
    return json_response(await sessions.get_access(ctx))


@router.patch(
    "/users/me",
    response_model=UserView,
    summary="Change my profile",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        UserInactive,
        UserNotFound,
        PreconditionFailed,
    ),
)
async def update_me(
    ctx: Annotated[CallContext, require_scope(PROFILE)],
    expected_versions: Annotated[ExpectedVersions, Depends(if_match_optional)],
    body: ChangeProfileRequest,
    accounts: AccountsDep,
) -> Response:
    """Change the caller's profile. `If-Match` is optional."""
    change = ChangeProfile(**body.model_dump(include=body.model_fields_set))
    return versioned_response(await accounts.update_me(ctx, change, expected_versions))


@router.post(
    "/users/me/password",
    status_code=204,
    response_class=Response,
    summary="Change my password",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        BadCredentials,
        UserInactive,
        UserNotFound,
        PasswordUnacceptable,
        Overloaded,
    ),
)
async def change_password(
    ctx: Annotated[CallContext, require_scope(PROFILE)],
    body: ChangePasswordRequest,
    accounts: AccountsDep,
) -> Response:
    """Change the password. All other sessions of the caller end."""
    await accounts.change_password(ctx, body.current_password, body.new_password)
    return Response(status_code=204)


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
