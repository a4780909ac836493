"""HTTP API of users."""

from typing import Annotated, Final, Literal, Protocol

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from pydantic import AfterValidator, ConfigDict, Field
from starlette.datastructures import FormData

from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    IDEMPOTENCY_ERRORS,
    VERSION_ERRORS,
)
from markethall.shared.http.conditional_requests import (
    apply_if_none_match,
    if_match,
    if_match_optional,
)
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import created_response, run_idempotent
from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import json_response
from markethall.shared.http.route_policies import public, require_scope
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import (
    MalformedRequest,
    Overloaded,
    PreconditionFailed,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
)
from markethall.shared.kernel.etags import ExpectedVersions, etag
from markethall.shared.kernel.model import Bool, Dto, Id, RequestModel, Text
from markethall.shared.kernel.pagination import CursorInvalid, Page, PageQuery
from markethall.shared.kernel.scopes import PROFILE, SCOPE_DESCRIPTIONS, USERS_MANAGE
from markethall.users.contract import (
    Accounts,
    BadCredentials,
    BadRefreshToken,
    ChangeProfile,
    ChangeUser,
    EmailTaken,
    JwkSet,
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
    UserView,
)
from markethall.users.domain import (
    MAX_EMAIL_LENGTH,
    MAX_FULL_NAME_LENGTH,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    USERNAME_PATTERN,
    normalize_email,
)

router = APIRouter(tags=["users"])


class Services(Protocol):
    """The services that these routes call."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def sessions(self) -> Sessions: ...

    @property
    def idempotency(self) -> IdempotencyService: ...


_from_users: Final[FromContext[Services]] = FromContext("users")
AccountsDep = Annotated[Accounts, Depends(_from_users(lambda container: container.accounts))]
SessionsDep = Annotated[Sessions, Depends(_from_users(lambda container: container.sessions))]
IdempotencyDep = Annotated[
    IdempotencyService, Depends(_from_users(lambda container: container.idempotency))
]

_FORM_MEDIA_TYPE: Final = "application/x-www-form-urlencoded"
_GRANT_TYPES: Final = ("password", "refresh_token")
_NO_STORE_HEADERS: Final = {"cache-control": "no-store", "pragma": "no-cache"}
_PUBLIC_CACHE_HEADERS: Final = {"cache-control": "public, max-age=300"}
# longer than any acceptable password, so that the domain's error explains the limit
_MAX_PASSWORD_LENGTH: Final = 1024

Email = Annotated[
    Text,
    Field(max_length=MAX_EMAIL_LENGTH, examples=["ada@example.com"]),
    AfterValidator(normalize_email),
]
Password = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=_MAX_PASSWORD_LENGTH,
        json_schema_extra={"format": "password"},
        examples=["correct horse battery staple"],
    ),
]
FullName = Annotated[Text, Field(max_length=MAX_FULL_NAME_LENGTH, examples=["Ada Lovelace"])]
Tags = Annotated[
    tuple[Annotated[Text, Field(min_length=1, max_length=MAX_TAG_LENGTH)], ...],
    Field(max_length=MAX_TAGS, examples=[["newsletter"]]),
]


class RegisterRequest(RequestModel):
    username: Annotated[Text, Field(pattern=USERNAME_PATTERN, examples=["ada"])]
    email: Email
    password: Annotated[Password, Field(repr=False)]
    full_name: FullName | None = None
    tags: Tags = ()


class ChangeProfileRequest(RequestModel):
    """Fields that are left out stay unchanged; a `full_name` of null removes it."""

    full_name: FullName | None = None
    tags: Tags = ()


class ChangePasswordRequest(RequestModel):
    current_password: Annotated[Password, Field(repr=False)]
    new_password: Annotated[Password, Field(repr=False)]


class ChangeUserRequest(RequestModel):
    """Fields that are left out stay unchanged."""

    is_active: Bool | None = None
    roles: Annotated[
        tuple[Role, ...] | None, Field(min_length=1, max_length=len(Role), examples=[["staff"]])
    ] = None


class TokenForm(RequestModel):
    """The form of RFC 6749; unknown parameters are ignored (section 3.2)."""

    model_config = ConfigDict(extra="ignore")

    grant_type: Annotated[Text, Field(max_length=100, examples=["password"])] = "password"
    username: Annotated[Text | None, Field(max_length=MAX_EMAIL_LENGTH, examples=["ada"])] = None
    password: Annotated[Password | None, Field(repr=False)] = None
    refresh_token: Annotated[Text | None, Field(max_length=200, repr=False)] = None


class RevocationForm(RequestModel):
    model_config = ConfigDict(extra="ignore")

    token: Annotated[Text, Field(max_length=8192, repr=False)]


class OpenIdConfiguration(Dto):
    """The fields of RFC 8414 that apply."""

    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    jwks_uri: str
    grant_types_supported: tuple[str, ...] = _GRANT_TYPES
    response_types_supported: tuple[str, ...] = ()
    scopes_supported: tuple[str, ...] = tuple(SCOPE_DESCRIPTIONS)
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("none",)
    revocation_endpoint_auth_methods_supported: tuple[str, ...] = ("none",)
    subject_types_supported: tuple[str, ...] = ("public",)
    id_token_signing_alg_values_supported: tuple[Literal["EdDSA"], ...] = ("EdDSA",)


async def require_single_valued_form(request: Request) -> None:
    """Raises UnsupportedMediaType, MalformedRequest for a repeated parameter (RFC 6749, 3.2)."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in {"", _FORM_MEDIA_TYPE}:
        raise UnsupportedMediaType(supported=[_FORM_MEDIA_TYPE])
    form: FormData = await request.form()
    if len(form.multi_items()) != len(form):
        raise MalformedRequest("A parameter appears twice.")


# Registration and tokens


@router.post(
    "/users",
    status_code=201,
    response_model=UserView,
    summary="Register",
    responses=problems(
        *IDEMPOTENCY_ERRORS,
        UsernameTaken,
        EmailTaken,
        ValidationFailed,
        PasswordUnacceptable,
        Overloaded,
        Unavailable,
    ),
)
async def register(
    request: Request,
    *,
    ctx: Annotated[CallContext, public()],
    body: RegisterRequest,
    accounts: AccountsDep,
    sessions: SessionsDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Create an account. It is active at once, with the role `customer`."""
    command = Register(**body.model_dump())
    # the payload hash is stored with the key, so it must not help to guess the password
    fingerprinted_body = body.model_copy(
        update={"password": await sessions.compute_fingerprint(body.password)}
    )
    to_response = created_response(lambda account: f"/users/{account.user_id}")
    return await run_idempotent(
        request,
        ctx,
        fingerprinted_body,
        idempotency,
        lambda attempt: accounts.register(ctx, command, attempt),
        to_response,
    )


@router.post(
    "/token",
    response_model=TokenPair,
    summary="Issue or refresh tokens",
    dependencies=[Depends(require_single_valued_form)],
    responses=problems(
        UnsupportedGrantType,
        MalformedRequest,
        BadCredentials,
        BadRefreshToken,
        UnsupportedMediaType,
        ValidationFailed,
        Overloaded,
        Unavailable,
    ),
)
async def issue_token(
    ctx: Annotated[CallContext, public()], form: Annotated[TokenForm, Form()], sessions: SessionsDep
) -> Response:
    """OAuth 2.0 token endpoint: `grant_type` is password (the default) or refresh_token.

    A refresh token is valid for one use. `username` may be the e-mail address.
    """
    if form.grant_type not in _GRANT_TYPES:
        raise UnsupportedGrantType(supported=list(_GRANT_TYPES))
    if form.grant_type == "refresh_token":
        (refresh_token,) = _require_fields(refresh_token=form.refresh_token)
        return json_response(await sessions.refresh(ctx, refresh_token), headers=_NO_STORE_HEADERS)
    login, password = _require_fields(username=form.username, password=form.password)
    return json_response(await sessions.sign_in(ctx, login, password), headers=_NO_STORE_HEADERS)


@router.post(
    "/token/revoke",
    summary="Revoke a refresh token",
    dependencies=[Depends(require_single_valued_form)],
    responses=problems(MalformedRequest, UnsupportedMediaType, ValidationFailed, Unavailable),
)
async def revoke_token(
    ctx: Annotated[CallContext, public()],
    form: Annotated[RevocationForm, Form()],
    sessions: SessionsDep,
) -> Response:
    """End the session of a refresh token (RFC 7009). Responds 200 for an invalid token too."""
    await sessions.revoke(ctx, form.token)
    return Response(status_code=200, headers=_NO_STORE_HEADERS)


@router.get("/.well-known/jwks.json", response_model=JwkSet, summary="Public keys")
async def get_jwks(ctx: Annotated[CallContext, public()], sessions: SessionsDep) -> Response:
    """The public keys of access tokens (RFC 7517)."""
    return json_response(await sessions.get_jwks(ctx), headers=_PUBLIC_CACHE_HEADERS)


@router.get(
    "/.well-known/openid-configuration",
    response_model=OpenIdConfiguration,
    summary="Server metadata",
    dependencies=[public()],
)
async def get_openid_configuration(sessions: SessionsDep) -> Response:
    """Metadata of this issuer (RFC 8414)."""
    issuer = await sessions.get_issuer()
    base = issuer.rstrip("/")
    document = OpenIdConfiguration(
        issuer=issuer,
        token_endpoint=f"{base}/token",
        revocation_endpoint=f"{base}/token/revoke",
        jwks_uri=f"{base}/.well-known/jwks.json",
    )
    return json_response(document, headers=_PUBLIC_CACHE_HEADERS)


# The caller's account


@router.get(
    "/users/me",
    response_model=UserView,
    summary="Get my account",
    responses=problems(*AUTHENTICATED_ERRORS, UserInactive, UserNotFound),
)
async def get_me(
    request: Request, ctx: Annotated[CallContext, require_scope(PROFILE)], accounts: AccountsDep
) -> Response:
    return apply_if_none_match(request, _with_etag(await accounts.get_me(ctx)))


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
    """`If-Match` is optional."""
    change = ChangeProfile(**body.model_dump(include=body.model_fields_set))
    return _with_etag(await accounts.update_me(ctx, change, expected_versions))


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
    """Ends all other sessions."""
    await accounts.change_password(ctx, body.current_password, body.new_password)
    return Response(status_code=204)


# User management


@router.get(
    "/users",
    response_model=Page[UserView],
    summary="List users",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_users(
    ctx: Annotated[CallContext, require_scope(USERS_MANAGE)],
    query: Annotated[PageQuery, Query()],
    accounts: AccountsDep,
) -> Response:
    """In the order of registration."""
    return json_response(await accounts.list_users(ctx, query.limit, query.cursor))


@router.get(
    "/users/{user_id}",
    response_model=UserView,
    summary="Get a user",
    responses=problems(*AUTHENTICATED_ERRORS, UserNotFound),
)
async def get_user(
    request: Request,
    ctx: Annotated[CallContext, require_scope(USERS_MANAGE)],
    user_id: Id,
    accounts: AccountsDep,
) -> Response:
    return apply_if_none_match(request, _with_etag(await accounts.get_user(ctx, user_id)))


@router.patch(
    "/users/{user_id}",
    response_model=UserView,
    summary="Change the roles or the activity of a user",
    responses=problems(
        *AUTHENTICATED_ERRORS,
        *VERSION_ERRORS,
        UserNotFound,
        LastAdmin,
    ),
)
async def change_user(
    ctx: Annotated[CallContext, require_scope(USERS_MANAGE)],
    user_id: Id,
    expected_versions: Annotated[ExpectedVersions, Depends(if_match)],
    body: ChangeUserRequest,
    accounts: AccountsDep,
) -> Response:
    """Disabling ends all sessions. Scopes change with the next access token."""
    change = ChangeUser(is_active=body.is_active, roles=body.roles)
    return _with_etag(await accounts.change_user(ctx, user_id, change, expected_versions))


def _with_etag(user: UserView) -> Response:
    return json_response(user, headers={"etag": etag(user.version)})


def _require_fields(**fields: str | None) -> list[str]:
    """Raises ValidationFailed that names the missing fields."""
    errors = [
        {"field": f"/{name}", "code": "missing", "message": "Field required"}
        for name, value in fields.items()
        if value is None
    ]
    if errors:
        raise ValidationFailed(f"{errors[0]['field']}: Field required.", errors=errors)
    return [value for value in fields.values() if value is not None]
