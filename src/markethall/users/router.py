"""What the world may ask of users."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from pydantic import AfterValidator, ConfigDict, Field
from starlette.datastructures import FormData

from markethall.shared.auth import PROFILE, SCOPE_MEANS, USERS_MANAGE, allow, anyone
from markethall.shared.call import Call
from markethall.shared.errors import (
    Busy,
    Forbidden,
    Invalid,
    Malformed,
    PreconditionFailed,
    PreconditionRequired,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from markethall.shared.http import (
    conditional,
    created,
    from_container,
    if_match,
    if_match_optional,
    once,
    problems,
    ready,
)
from markethall.shared.idempotency import InFlight, KeyInvalid, Keys, PayloadMismatch
from markethall.shared.model import Body, Bool, Dto, Id, Text
from markethall.shared.pages import CursorInvalid, Page, PageQuery
from markethall.shared.versions import Seen, etag
from markethall.users.contract import (
    Account,
    Accounts,
    BadCredentials,
    BadRefreshToken,
    ChangeProfile,
    ChangeUser,
    EmailTaken,
    KeySet,
    LastAdmin,
    PasswordUnacceptable,
    Register,
    Role,
    Sessions,
    TokenPair,
    UnsupportedGrantType,
    UserInactive,
    UsernameTaken,
    UserNotFound,
)
from markethall.users.domain import (
    LONGEST_EMAIL,
    LONGEST_NAME,
    LONGEST_TAG,
    MOST_TAGS,
    USERNAME,
    email_address,
)

router = APIRouter(tags=["users"])

AccountsDep = Annotated[Accounts, Depends(from_container("accounts"))]
SessionsDep = Annotated[Sessions, Depends(from_container("sessions"))]
KeysDep = Annotated[Keys, Depends(from_container("users_keys"))]

_FORM: Final = "application/x-www-form-urlencoded"
_GRANTS: Final = ("password", "refresh_token")
_PRIVATE: Final = {"cache-control": "no-store", "pragma": "no-cache"}
_FOR_ALL: Final = {"cache-control": "public, max-age=300"}
# longer than any acceptable password, so that the domain can say what is wrong
_LONGEST_SECRET: Final = 1024

Email = Annotated[
    Text,
    Field(max_length=LONGEST_EMAIL, examples=["ada@example.com"]),
    AfterValidator(email_address),
]
Secret = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=_LONGEST_SECRET,
        json_schema_extra={"format": "password"},
        examples=["correct horse battery staple"],
    ),
]
FullName = Annotated[Text, Field(max_length=LONGEST_NAME, examples=["Ada Lovelace"])]
Tags = Annotated[
    tuple[Annotated[Text, Field(min_length=1, max_length=LONGEST_TAG)], ...],
    Field(max_length=MOST_TAGS, examples=[["newsletter"]]),
]


class NewUser(Body):
    username: Annotated[Text, Field(pattern=USERNAME, examples=["ada"])]
    email: Email
    password: Annotated[Secret, Field(repr=False)]
    full_name: FullName | None = None
    tags: Tags = ()


class ProfileChange(Body):
    """What is left out stays as it is; a full name of null is taken away."""

    full_name: FullName | None = None
    tags: Tags = ()


class PasswordChange(Body):
    current_password: Annotated[Secret, Field(repr=False)]
    new_password: Annotated[Secret, Field(repr=False)]


class UserChange(Body):
    """What is left out stays as it is."""

    is_active: Bool | None = None
    roles: Annotated[
        tuple[Role, ...] | None, Field(min_length=1, max_length=len(Role), examples=[["staff"]])
    ] = None


class TokenForm(Body):
    """RFC 6749; parameters that are not known here are ignored, as section 3.2 wants it."""

    model_config = ConfigDict(extra="ignore")

    grant_type: Annotated[Text, Field(max_length=100, examples=["password"])] = "password"
    username: Annotated[Text | None, Field(max_length=LONGEST_EMAIL, examples=["ada"])] = None
    password: Annotated[Secret | None, Field(repr=False)] = None
    refresh_token: Annotated[Text | None, Field(max_length=200, repr=False)] = None


class RevocationForm(Body):
    model_config = ConfigDict(extra="ignore")

    token: Annotated[Text, Field(max_length=8192, repr=False)]


class Discovery(Dto):
    """RFC 8414: what applies of it."""

    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    jwks_uri: str
    grant_types_supported: tuple[str, ...] = _GRANTS
    response_types_supported: tuple[str, ...] = ()
    scopes_supported: tuple[str, ...] = tuple(SCOPE_MEANS)
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("none",)
    revocation_endpoint_auth_methods_supported: tuple[str, ...] = ("none",)
    subject_types_supported: tuple[str, ...] = ("public",)
    id_token_signing_alg_values_supported: tuple[Literal["EdDSA"], ...] = ("EdDSA",)


async def form_once(request: Request) -> None:
    """Raises UnsupportedMediaType, and Malformed when a parameter comes twice (RFC 6749, 3.2)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in {"", _FORM}:
        raise UnsupportedMediaType(supported=[_FORM])
    form: FormData = await request.form()
    if len(form.multi_items()) != len(form):
        raise Malformed("A parameter appears twice.")


# Signing up and in


@router.post(
    "/users",
    status_code=201,
    response_model=Account,
    summary="Register",
    responses=problems(
        KeyInvalid, UsernameTaken, EmailTaken, InFlight, Invalid, PasswordUnacceptable,
        PayloadMismatch, Busy, Unavailable,
    ),
)  # fmt: skip
async def register(
    request: Request,
    *,
    call: Annotated[Call, anyone()],
    body: NewUser,
    accounts: AccountsDep,
    sessions: SessionsDep,
    keys: KeysDep,
) -> Response:
    """Make an account. It is active at once, with the role `customer`."""
    command = Register(**body.model_dump())
    # what is remembered with the key must not help anybody to guess the password
    sealed = body.model_copy(update={"password": await sessions.fingerprint(body.password)})
    present = created(lambda account: f"/users/{account.user_id}")
    return await once(
        request,
        call,
        sealed,
        keys,
        lambda attempt: accounts.register(call, command, attempt),
        present,
    )


@router.post(
    "/token",
    response_model=TokenPair,
    summary="Sign in, or stay signed in",
    dependencies=[Depends(form_once)],
    responses=problems(
        UnsupportedGrantType, Malformed, BadCredentials, BadRefreshToken, UnsupportedMediaType,
        Invalid, Busy, Unavailable,
    ),
)  # fmt: skip
async def token(
    call: Annotated[Call, anyone()], form: Annotated[TokenForm, Form()], sessions: SessionsDep
) -> Response:
    """OAuth 2.0 token endpoint: `grant_type` is password (the default) or refresh_token.

    A refresh token is good for one use. `username` may be the e-mail address.
    """
    if form.grant_type not in _GRANTS:
        raise UnsupportedGrantType(supported=list(_GRANTS))
    if form.grant_type == "refresh_token":
        (refresh_token,) = _needed(refresh_token=form.refresh_token)
        return ready(await sessions.refresh(call, refresh_token), headers=_PRIVATE)
    name, password = _needed(username=form.username, password=form.password)
    return ready(await sessions.sign_in(call, name, password), headers=_PRIVATE)


@router.post(
    "/token/revoke",
    summary="Sign out",
    dependencies=[Depends(form_once)],
    responses=problems(Malformed, UnsupportedMediaType, Invalid, Unavailable),
)
async def revoke(
    call: Annotated[Call, anyone()], form: Annotated[RevocationForm, Form()], sessions: SessionsDep
) -> Response:
    """End the session of a refresh token (RFC 7009). 200 also for what is no token."""
    await sessions.revoke(call, form.token)
    return Response(status_code=200, headers=_PRIVATE)


@router.get("/.well-known/jwks.json", response_model=KeySet, summary="Public keys")
async def key_set(call: Annotated[Call, anyone()], sessions: SessionsDep) -> Response:
    """The keys that access tokens are signed with (RFC 7517)."""
    return ready(await sessions.key_set(call), headers=_FOR_ALL)


@router.get(
    "/.well-known/openid-configuration", response_model=Discovery, summary="Where things are"
)
async def discovery(
    call: Annotated[Call, anyone()],  # noqa: ARG001 - the policy
    sessions: SessionsDep,
) -> Response:
    """Addresses and abilities of this issuer (RFC 8414)."""
    issuer = await sessions.issuer()
    base = issuer.rstrip("/")
    found = Discovery(
        issuer=issuer,
        token_endpoint=f"{base}/token",
        revocation_endpoint=f"{base}/token/revoke",
        jwks_uri=f"{base}/.well-known/jwks.json",
    )
    return ready(found, headers=_FOR_ALL)


# One's own account


@router.get(
    "/users/me",
    response_model=Account,
    summary="My account",
    responses=problems(Unauthenticated, Forbidden, UserInactive, UserNotFound, Unavailable),
)
async def me(
    request: Request, call: Annotated[Call, allow(PROFILE)], accounts: AccountsDep
) -> Response:
    return conditional(request, _tagged(await accounts.me(call)))


@router.patch(
    "/users/me",
    response_model=Account,
    summary="Change my profile",
    responses=problems(
        Unauthenticated, Forbidden, UserInactive, UserNotFound, PreconditionFailed, Invalid,
        Unavailable,
    ),
)  # fmt: skip
async def update_me(
    call: Annotated[Call, allow(PROFILE)],
    seen: Annotated[Seen, Depends(if_match_optional)],
    body: ProfileChange,
    accounts: AccountsDep,
) -> Response:
    """`If-Match` is honoured, and not required."""
    change = ChangeProfile(**body.model_dump(include=body.model_fields_set))
    return _tagged(await accounts.update_me(call, change, seen))


@router.post(
    "/users/me/password",
    status_code=204,
    response_class=Response,
    summary="Change my password",
    responses=problems(
        Unauthenticated, BadCredentials, Forbidden, UserInactive, UserNotFound, Invalid,
        PasswordUnacceptable, Busy, Unavailable,
    ),
)  # fmt: skip
async def change_password(
    call: Annotated[Call, allow(PROFILE)], body: PasswordChange, accounts: AccountsDep
) -> Response:
    """All other sessions end."""
    await accounts.change_password(call, body.current_password, body.new_password)
    return Response(status_code=204)


# For those who manage users


@router.get(
    "/users",
    response_model=Page[Account],
    summary="All users",
    responses=problems(Unauthenticated, Forbidden, Invalid, CursorInvalid, Unavailable),
)
async def users(
    call: Annotated[Call, allow(USERS_MANAGE)],
    query: Annotated[PageQuery, Query()],
    accounts: AccountsDep,
) -> Response:
    """In the order in which they signed up."""
    return ready(await accounts.users(call, query.limit, query.cursor))


@router.get(
    "/users/{user_id}",
    response_model=Account,
    summary="A user",
    responses=problems(Unauthenticated, Forbidden, UserNotFound, Invalid, Unavailable),
)
async def user(
    request: Request,
    call: Annotated[Call, allow(USERS_MANAGE)],
    user_id: Id,
    accounts: AccountsDep,
) -> Response:
    return conditional(request, _tagged(await accounts.user(call, user_id)))


@router.patch(
    "/users/{user_id}",
    response_model=Account,
    summary="Disable, enable or appoint a user",
    responses=problems(
        Unauthenticated, Forbidden, UserNotFound, LastAdmin, PreconditionFailed, Invalid,
        PreconditionRequired, Unavailable,
    ),
)  # fmt: skip
async def change_user(
    call: Annotated[Call, allow(USERS_MANAGE)],
    user_id: Id,
    seen: Annotated[Seen, Depends(if_match)],
    body: UserChange,
    accounts: AccountsDep,
) -> Response:
    """Disabling ends all sessions. Scopes change with the next access token."""
    change = ChangeUser(is_active=body.is_active, roles=body.roles)
    return _tagged(await accounts.change_user(call, user_id, change, seen))


def _tagged(account: Account) -> Response:
    return ready(account, headers={"etag": etag(account.version)})


def _needed(**fields: str | None) -> list[str]:
    """Raises Invalid, naming the fields that are missing."""
    errors = [
        {"field": f"/{name}", "code": "missing", "message": "Field required"}
        for name, value in fields.items()
        if value is None
    ]
    if errors:
        raise Invalid(f"{errors[0]['field']}: Field required.", errors=errors)
    return [value for value in fields.values() if value is not None]
