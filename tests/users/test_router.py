"""The HTTP API of users."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from markethall.shared.http.gateway import GatewayMiddleware, TokenVerifiers
from markethall.shared.http.gateway_config import GatewayConfig
from markethall.shared.http.problem_details import (
    http_exception_handler,
    problem_handler,
    validation_handler,
)
from markethall.shared.http.rate_limits import RateLimiter
from markethall.shared.kernel.errors import DomainError
from markethall.shared.persistence.redis_client import RedisClient
from markethall.shared.security.jwks import LocalJwks, UserTokenVerifier
from markethall.users.router import router
from tests.users.conftest import ISSUER, PASSWORD, UsersApp

NEW_PASSWORD = "tr0ubador and three more words"
FORM_HEADERS = {"content-type": "application/x-www-form-urlencoded"}


GATEWAY_CONFIG = GatewayConfig(
    max_body_bytes=1024 * 1024,
    body_timeout_seconds=60,
    trusted_proxies=(),
    context_by_path={"users": "users", "token": "users", ".well-known": "users"},
    form_paths=frozenset({"/token", "/token/revoke"}),
)


class Client:
    """An HTTP client with or without an access token."""

    def __init__(self, http: httpx2.AsyncClient, users_app: UsersApp) -> None:
        self.http = http
        self.users_app = users_app

    async def sign_in(self, name: str, password: str = PASSWORD) -> dict[str, str]:
        pair = await self.users_app.sign_in(name, password)
        return {"authorization": f"Bearer {pair.access_token}"}

    async def admin(self) -> dict[str, str]:
        await self.users_app.accounts.create_staff("boss@example.com", "admin", PASSWORD, "boss")
        return await self.sign_in("boss")

    async def register(self, **fields: Any) -> httpx2.Response:
        headers = fields.pop("headers", None)
        body = {"username": "ada", "email": "ada@example.com", "password": PASSWORD, **fields}
        return await self.http.post("/users", json=body, headers=headers)

    async def token(self, **form: str) -> httpx2.Response:
        return await self.http.post("/token", data=form)


@pytest.fixture
async def client(users_app: UsersApp) -> AsyncIterator[Client]:
    app = FastAPI(
        exception_handlers={
            DomainError: problem_handler,
            RequestValidationError: validation_handler,
            HTTPException: http_exception_handler,
        }
    )
    app.include_router(router)
    app.state.contexts = {"users": users_app.container}
    user_tokens = UserTokenVerifier(
        users_app.verifier, LocalJwks(users_app.container.signer().jwks)
    )
    token_verifiers = TokenVerifiers(lambda: user_tokens)
    gateway = GatewayMiddleware(
        app, GATEWAY_CONFIG, token_verifiers, RateLimiter("off", RedisClient(None))
    )
    transport = httpx2.ASGITransport(gateway)
    same = {"x-request-id": "the-same-for-all"}
    async with httpx2.AsyncClient(transport=transport, base_url=ISSUER, headers=same) as http:
        yield Client(http, users_app)


def assert_problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (status, code)
    assert PASSWORD not in response.text
    return body


# Registration and sign-in


async def test_register_returns_account_and_location(client: Client) -> None:
    response = await client.register(full_name="Ada Lovelace", tags=["vip"])

    body = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/users/{body['user_id']}"
    assert body == {
        "user_id": body["user_id"],
        "username": "ada",
        "email": "ada@example.com",
        "full_name": "Ada Lovelace",
        "tags": ["vip"],
        "roles": ["customer"],
        "is_active": True,
        "email_verified": False,
        "signup_date": body["signup_date"],
        "version": 1,
    }


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"username": "ad"}, "/username"),
        ({"username": "ada lovelace"}, "/username"),
        ({"username": "ada\n"}, "/username"),
        ({"username": 7}, "/username"),
        ({"email": "nothing"}, "/email"),
        ({"email": None}, "/email"),
        ({"email": "a" * 250 + "@example.com"}, "/email"),
        ({"password": ""}, "/password"),
        ({"password": "x" * 1025}, "/password"),
        ({"password": 12345678}, "/password"),
        ({"full_name": "x" * 201}, "/full_name"),
        # the gateway rejects a NUL before the route validates the body, so the error names no field
        ({"full_name": "a\x00b"}, ""),
        ({"tags": ["t"] * 21}, "/tags"),
        ({"tags": ["t" * 51]}, "/tags/0"),
        ({"tags": [""]}, "/tags/0"),
        ({"tags": "vip"}, "/tags"),
        ({"roles": ["admin"]}, "/roles"),
        ({"is_active": False}, "/is_active"),
    ],
    ids=str,
)
async def test_a_registration_that_is_not_valid_is_rejected(
    client: Client, wrong: dict[str, Any], field: str
) -> None:
    response = await client.register(**wrong)

    body = assert_problem(response, 422, "request.invalid")
    assert [error["field"] for error in body["errors"]] == [field]


async def test_a_weak_password_is_rejected_with_its_reason(client: Client) -> None:
    response = await client.register(password="password123")

    body = assert_problem(response, 422, "users.password_unacceptable")
    assert body["details"] == {"reason": "too_common"}


async def test_username_and_email_conflicts_are_distinct(client: Client) -> None:
    await client.register()

    same_name = await client.register(username="ADA", email="other@example.com")
    same_email = await client.register(username="other", email="ADA@Example.com")

    assert_problem(same_name, 409, "users.username_taken")
    assert_problem(same_email, 409, "users.email_taken")


async def test_registration_is_idempotent_by_key(client: Client) -> None:
    headers = {"idempotency-key": "my-key"}

    first = await client.register(headers=headers)
    again = await client.register(headers=headers)
    other = await client.register(headers=headers, password=NEW_PASSWORD)

    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["etag"] == first.headers["etag"] == '"v1"'
    assert again.headers["idempotency-replayed"] == "true"
    assert_problem(other, 422, "idempotency.payload_mismatch")


async def test_rejected_registration_is_replayed(client: Client) -> None:
    await client.register()
    headers = {"idempotency-key": "my-key"}

    first = await client.register(headers=headers, email="other@example.com")
    again = await client.register(headers=headers, email="other@example.com")

    assert assert_problem(again, 409, "users.username_taken") == assert_problem(
        first, 409, "users.username_taken"
    )
    assert again.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize("grant", [{}, {"grant_type": "password"}, {"grant_type": ""}])
async def test_login_returns_token_pair(client: Client, grant: dict[str, str]) -> None:
    await client.register()

    response = await client.token(
        username="ada", password=PASSWORD, scope="", client_id="docs", **grant
    )

    body = response.json()
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert body.keys() == {
        "access_token",
        "token_type",
        "expires_in",
        "refresh_token",
        "scope",
    }
    assert (body["token_type"], body["expires_in"]) == ("bearer", 900)
    assert body["scope"] == "orders payments profile"


async def test_login_error_reveals_nothing(client: Client) -> None:
    await client.register()

    wrong = await client.token(username="ada", password=NEW_PASSWORD)
    unknown = await client.token(username="unknown", password=NEW_PASSWORD)

    assert assert_problem(wrong, 401, "users.bad_credentials") == assert_problem(
        unknown, 401, "users.bad_credentials"
    )
    assert wrong.headers["www-authenticate"] == "Bearer"


async def test_refresh_token_is_single_use(client: Client) -> None:
    await client.register()
    first = (await client.token(username="ada", password=PASSWORD)).json()["refresh_token"]

    second = await client.token(grant_type="refresh_token", refresh_token=first)
    client.users_app.clock.advance(seconds=11)
    reused = await client.token(grant_type="refresh_token", refresh_token=first)

    assert second.status_code == 200
    assert second.json()["refresh_token"] != first
    assert_problem(reused, 401, "users.bad_refresh_token")


@pytest.mark.parametrize(
    ("form", "missing"),
    [
        ({}, ["/username", "/password"]),
        ({"username": "ada"}, ["/password"]),
        ({"username": "ada", "password": ""}, ["/password"]),
        ({"grant_type": "refresh_token"}, ["/refresh_token"]),
    ],
    ids=str,
)
async def test_missing_fields_are_named(
    client: Client, form: dict[str, str], missing: list[str]
) -> None:
    response = await client.http.post("/token", data=form, headers=FORM_HEADERS)

    body = assert_problem(response, 422, "request.invalid")
    assert [error["field"] for error in body["errors"]] == missing


@pytest.mark.parametrize("grant", ["client_credentials", "PASSWORD", "authorization_code", "ü"])
async def test_unsupported_grant_is_rejected(client: Client, grant: str) -> None:
    response = await client.token(grant_type=grant, username="ada", password=PASSWORD)

    body = assert_problem(response, 400, "users.unsupported_grant_type")
    assert body["details"] == {"supported": ["password", "refresh_token"]}


@pytest.mark.parametrize("path", ["/token", "/token/revoke"])
async def test_token_requires_form_body(client: Client, path: str) -> None:
    fields = {"username": "ada", "password": PASSWORD, "token": "x"}

    as_json = await client.http.post(path, json=fields)
    as_parts = await client.http.post(path, files={"token": b"x"})
    twice = await client.http.post(path, content=b"token=x&token=y", headers=FORM_HEADERS)

    assert_problem(as_json, 415, "request.unsupported_media_type")
    assert_problem(as_parts, 415, "request.unsupported_media_type")
    assert_problem(twice, 400, "request.malformed")


async def test_logout_revokes_session(client: Client) -> None:
    await client.register()
    token = (await client.token(username="ada", password=PASSWORD)).json()["refresh_token"]

    responses = [
        await client.http.post("/token/revoke", data={"token": text})
        for text in (token, token, "never a token", "x" * 8000)
    ]

    assert [(response.status_code, response.content) for response in responses] == [(200, b"")] * 4
    again = await client.token(grant_type="refresh_token", refresh_token=token)
    assert_problem(again, 401, "users.bad_refresh_token")


async def test_jwks_and_metadata_are_published(client: Client) -> None:
    keys = await client.http.get("/.well-known/jwks.json")
    where = await client.http.get("/.well-known/openid-configuration")

    (key,) = keys.json()["keys"]
    assert key.keys() == {"kty", "crv", "use", "alg", "kid", "x"}
    assert keys.headers["cache-control"] == "public, max-age=300"
    assert where.json()["issuer"] == ISSUER
    assert where.json()["jwks_uri"] == f"{ISSUER}/.well-known/jwks.json"
    assert where.json()["token_endpoint"] == f"{ISSUER}/token"


# The caller's account


async def test_user_reads_and_updates_own_account(client: Client) -> None:
    made = (await client.register()).json()
    ada = await client.sign_in("ada")

    read = await client.http.get("/users/me", headers=ada)
    unchanged = await client.http.get(
        "/users/me", headers=ada | {"if-none-match": read.headers["etag"]}
    )
    changed = await client.http.patch("/users/me", headers=ada, json={"full_name": "Ada"})

    assert (read.status_code, read.json(), read.headers["etag"]) == (200, made, '"v1"')
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert changed.json() == made | {"full_name": "Ada", "version": 2}
    assert changed.headers["etag"] == '"v2"'


async def test_account_update_honours_if_match(client: Client) -> None:
    await client.register()
    ada = await client.sign_in("ada")

    stale = await client.http.patch(
        "/users/me", headers=ada | {"if-match": '"v7"'}, json={"tags": ["a"]}
    )
    good = await client.http.patch(
        "/users/me", headers=ada | {"if-match": '"v1"'}, json={"tags": ["a"]}
    )

    assert_problem(stale, 412, "request.if_match_failed")
    assert good.json()["tags"] == ["a"]


@pytest.mark.parametrize(
    "body", [{"roles": ["admin"]}, {"is_active": True}, {"email": "b@example.com"}, {"tags": None}]
)
async def test_user_cannot_change_own_roles(client: Client, body: dict[str, Any]) -> None:
    await client.register()
    ada = await client.sign_in("ada")

    response = await client.http.patch("/users/me", headers=ada, json=body)

    assert_problem(response, 422, "request.invalid")


async def test_user_changes_own_password(client: Client) -> None:
    await client.register()
    ada = await client.sign_in("ada")
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}

    changed = await client.http.post("/users/me/password", headers=ada, json=body)
    again = await client.http.post("/users/me/password", headers=ada, json=body)

    assert (changed.status_code, changed.content) == (204, b"")
    assert_problem(again, 401, "users.bad_credentials")
    assert (await client.token(username="ada", password=NEW_PASSWORD)).status_code == 200


async def test_disabled_user_gets_specific_error(client: Client) -> None:
    user_id = (await client.register()).json()["user_id"]
    ada, boss = await client.sign_in("ada"), await client.admin()

    await client.http.patch(
        f"/users/{user_id}", headers=boss | {"if-match": '"v1"'}, json={"is_active": False}
    )
    response = await client.http.get("/users/me", headers=ada)

    assert_problem(response, 403, "users.inactive")


# User management


async def test_admin_changes_roles_and_disables_users(client: Client) -> None:
    user_id = (await client.register()).json()["user_id"]
    boss = await client.admin()
    path = f"/users/{user_id}"

    blind = await client.http.patch(path, headers=boss, json={"is_active": False})
    first = await client.http.patch(
        path, headers=boss | {"if-match": '"v1"'}, json={"roles": ["customer", "staff:orders"]}
    )
    stale = await client.http.patch(
        path, headers=boss | {"if-match": '"v1"'}, json={"is_active": False}
    )
    read = await client.http.get(path, headers=boss)

    assert_problem(blind, 428, "request.if_match_missing")
    assert first.json()["roles"] == ["customer", "staff:orders"]
    body = assert_problem(stale, 412, "request.if_match_failed")
    assert body["details"] == {"etag": '"v2"'}
    assert (read.json(), read.headers["etag"]) == (first.json(), '"v2"')


async def test_last_admin_cannot_be_removed(client: Client) -> None:
    boss = await client.admin()
    user_id = (await client.http.get("/users/me", headers=boss)).json()["user_id"]

    response = await client.http.patch(
        f"/users/{user_id}", headers=boss | {"if-match": '"v1"'}, json={"roles": ["customer"]}
    )

    assert_problem(response, 409, "users.last_admin")


@pytest.mark.parametrize(
    "body", [{"roles": ["king"]}, {"roles": []}, {"is_active": "no"}, {"version": 3}, []]
)
async def test_invalid_access_change_is_rejected(client: Client, body: Any) -> None:
    user_id = (await client.register()).json()["user_id"]
    boss = await client.admin()

    response = await client.http.patch(
        f"/users/{user_id}", headers=boss | {"if-match": '"v1"'}, json=body
    )

    assert_problem(response, 422, "request.invalid")


async def test_users_are_paginated(client: Client) -> None:
    for i in range(4):
        await client.users_app.register(f"user{i}")
    boss = await client.admin()

    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await client.http.get("/users", headers=boss, params=params)).json()
        names += [item["username"] for item in page["items"]]
        cursor = page["next_cursor"]

    assert names == ["user0", "user1", "user2", "user3", "boss"]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "offset=3", "limit=a"])
async def test_list_query_is_validated(client: Client, query: str) -> None:
    boss = await client.admin()

    assert_problem(await client.http.get(f"/users?{query}", headers=boss), 422, "request.invalid")


UNKNOWN = "0199c0de-0000-7000-8000-000000000001"
MANAGER_ROUTES: list[tuple[str, str]] = [
    ("GET", "/users"),
    ("PATCH", f"/users/{UNKNOWN}"),
]
OWN_ROUTES: list[tuple[str, str]] = [
    ("GET", "/users/me"),
    ("GET", f"/users/{UNKNOWN}"),
    ("PATCH", "/users/me"),
    ("POST", "/users/me/password"),
]


@pytest.mark.parametrize(("method", "path"), MANAGER_ROUTES + OWN_ROUTES)
async def test_missing_and_forged_tokens_are_rejected(
    client: Client, method: str, path: str
) -> None:
    anonymous = await client.http.request(method, path, json={})
    forger = await client.http.request(
        method, path, json={}, headers={"authorization": "Bearer x.y.z"}
    )

    assert_problem(anonymous, 401, "auth.unauthenticated")
    assert_problem(forger, 401, "auth.unauthenticated")
    assert forger.headers["www-authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize(("method", "path"), MANAGER_ROUTES)
async def test_customers_and_staff_cannot_manage_users(
    client: Client, method: str, path: str
) -> None:
    await client.register()
    await client.users_app.accounts.create_staff("staff@example.com", "staff", PASSWORD, "staff")

    for name in ("ada", "staff"):
        person = await client.sign_in(name)
        response = await client.http.request(method, path, json={}, headers=person)
        body = assert_problem(response, 403, "auth.forbidden")
        assert body["details"] == {"scope": "users:manage"}


async def test_owner_reads_the_location_of_the_registration(client: Client) -> None:
    location = (await client.register()).headers["location"]
    owner = await client.sign_in("ada")

    response = await client.http.get(location, headers=owner)
    cached = await client.http.get(
        location, headers=owner | {"if-none-match": response.headers["etag"]}
    )

    assert response.status_code == 200
    assert response.json() == (await client.http.get("/users/me", headers=owner)).json()
    assert cached.status_code == 304


@pytest.mark.parametrize(
    ("role", "status"), [("admin", 200), ("staff:orders", 200), ("staff:catalogue", 404)]
)
async def test_only_admins_and_staff_of_orders_read_other_users(
    client: Client, role: str, status: int
) -> None:
    location = (await client.register()).headers["location"]
    await client.users_app.accounts.create_staff("eve@example.com", role, PASSWORD, "eve")

    response = await client.http.get(location, headers=await client.sign_in("eve"))

    assert response.status_code == status


async def test_customer_cannot_tell_other_users_from_unknown_ones(client: Client) -> None:
    location = (await client.register()).headers["location"]
    await client.register(username="eve", email="eve@example.com")
    eve = await client.sign_in("eve")

    other = assert_problem(await client.http.get(location, headers=eve), 404, "users.not_found")
    unknown = assert_problem(
        await client.http.get(f"/users/{UNKNOWN}", headers=eve), 404, "users.not_found"
    )

    varying = {"instance", "request_id", "details", "detail"}
    assert {k: v for k, v in other.items() if k not in varying} == {
        k: v for k, v in unknown.items() if k not in varying
    }


@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_an_unknown_user_is_not_found(client: Client, method: str) -> None:
    boss = await client.admin() | {"if-match": '"v1"'}

    unknown = await client.http.request(method, f"/users/{UNKNOWN}", json={}, headers=boss)
    no_id = await client.http.request(method, "/users/not-an-id", json={}, headers=boss)

    assert_problem(unknown, 404, "users.not_found")
    assert no_id.status_code in {404, 422}
