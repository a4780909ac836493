"""Tokens of users, and the metadata of their issuer."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Form, Request, Response
from pydantic import ConfigDict, Field
from starlette.datastructures import FormData
from typing_extensions import TypeAliasType

from markethall.shared.http.problem_details import problems
from markethall.shared.http.responses import json_response
from markethall.shared.http.route_policies import FORM_BODY_LIMITS, public
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.email_address import MAX_EMAIL_LENGTH
from markethall.shared.kernel.errors import (
    MalformedRequest,
    Overloaded,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
)
from markethall.shared.kernel.model import Dto, RequestModel, Text
from markethall.shared.kernel.scopes import SCOPE_DESCRIPTIONS
from markethall.users.contract import JwkSet, TokenPair
from markethall.users.contract.errors import BadCredentials, BadRefreshToken, UnsupportedGrantType
from markethall.users.router.dependencies import SessionsDep
from markethall.users.router.fields import Password

router = APIRouter(tags=["users"])

# unknown parameters are strings in the schema, not lists, because no parameter may be repeated
_IGNORES_UNKNOWN_PARAMETERS: Final = ConfigDict(
    extra="ignore", json_schema_extra={"additionalProperties": {"type": "string"}}
)
FormSender = Annotated[CallContext, public(body_limits=FORM_BODY_LIMITS)]

_FORM_MEDIA_TYPE: Final = "application/x-www-form-urlencoded"
_GRANT_TYPES: Final = ("password", "refresh_token")
_NO_STORE_HEADERS: Final = {"cache-control": "no-store", "pragma": "no-cache"}
_PUBLIC_CACHE_HEADERS: Final = {"cache-control": "public, max-age=300"}


GrantType = TypeAliasType(
    "GrantType",
    Annotated[
        Text,
        # not an enum, because other values must lead to UnsupportedGrantType (RFC 6749, section
        # 5.2) and not to a validation error
        Field(
            max_length=100,
            json_schema_extra={"enum": list(_GRANT_TYPES)},
            examples=["password"],
        ),
    ],
)


class TokenForm(RequestModel):
    """The token request of RFC 6749. Unknown parameters are ignored (section 3.2)."""

    model_config = _IGNORES_UNKNOWN_PARAMETERS

    grant_type: GrantType = "password"
    username: Annotated[Text | None, Field(max_length=MAX_EMAIL_LENGTH, examples=["ada"])] = None
    password: Annotated[Password | None, Field(repr=False)] = None
    refresh_token: Annotated[Text | None, Field(max_length=200, repr=False)] = None


class RevocationForm(RequestModel):
    model_config = _IGNORES_UNKNOWN_PARAMETERS

    token: Annotated[Text, Field(min_length=1, max_length=8192, repr=False)]


class OpenIdConfiguration(Dto):
    """Metadata of the authorization server (RFC 8414)."""

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
    """Require form data without repeated parameters (RFC 6749, section 3.2).

    Raises UnsupportedMediaType, MalformedRequest.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in {"", _FORM_MEDIA_TYPE}:
        raise UnsupportedMediaType(supported=[_FORM_MEDIA_TYPE])
    form: FormData = await request.form()
    if len(form.multi_items()) != len(form):
        raise MalformedRequest("A parameter appears twice.")


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
    ctx: FormSender, form: Annotated[TokenForm, Form()], sessions: SessionsDep
) -> Response:
    """OAuth 2.0 token endpoint: `grant_type` is password (the default) or refresh_token.

    A refresh token can be exchanged once. `username` may be the e-mail address.
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
    response_class=Response,
    summary="Revoke a refresh token",
    dependencies=[Depends(require_single_valued_form)],
    responses=problems(MalformedRequest, UnsupportedMediaType, ValidationFailed, Unavailable),
)
async def revoke_token(
    ctx: FormSender, form: Annotated[RevocationForm, Form()], sessions: SessionsDep
) -> Response:
    """End the session of a refresh token (RFC 7009). An invalid token also gets the status 200."""
    await sessions.revoke(ctx, form.token)
    return Response(status_code=200, headers=_NO_STORE_HEADERS)


@router.get("/.well-known/jwks.json", response_model=JwkSet, summary="Public keys")
async def get_jwks(ctx: Annotated[CallContext, public()], sessions: SessionsDep) -> Response:
    """Return the public keys of access tokens (RFC 7517)."""
    return json_response(await sessions.get_jwks(ctx), headers=_PUBLIC_CACHE_HEADERS)


@router.get(
    "/.well-known/openid-configuration",
    response_model=OpenIdConfiguration,
    summary="Server metadata",
    dependencies=[public()],
)
async def get_openid_configuration(sessions: SessionsDep) -> Response:
    """Return the metadata of the authorization server (RFC 8414)."""
    issuer = await sessions.get_issuer()
    base = issuer.rstrip("/")
    document = OpenIdConfiguration(
        issuer=issuer,
        token_endpoint=f"{base}/token",
        revocation_endpoint=f"{base}/token/revoke",
        jwks_uri=f"{base}/.well-known/jwks.json",
    )
    return json_response(document, headers=_PUBLIC_CACHE_HEADERS)


def _require_fields(**fields: str | None) -> list[str]:
    """Return the values. Raises ValidationFailed with the names of missing fields."""
    errors = [
        {"field": f"/{name}", "code": "missing", "message": "Field required"}
        for name, value in fields.items()
        if value is None
    ]
    if errors:
        raise ValidationFailed(f"{errors[0]['field']}: Field required.", errors=errors)
    return [value for value in fields.values() if value is not None]
