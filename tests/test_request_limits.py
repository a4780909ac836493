"""Test various rules for requests: rate limits, roles, redirects, HEAD, keys and redaction."""

import time
from collections.abc import AsyncIterator

import httpx2
import pytest

from markethall.app import create_app
from markethall.local.demo import shop
from markethall.settings import read_settings
from markethall.shared.http.rate_limits import REQUESTS
from markethall.shared.kernel.call_context import system_context
from markethall.shared.observability.log import redact
from tests.containers import inventory_of

ADMIN = ("admin@example.com", "an admin's long password")


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    settings = read_settings(
        storage="memory", rate_limits="on", admin_email=ADMIN[0], admin_password=ADMIN[1]
    )
    app = create_app(settings)
    transport = httpx2.ASGITransport(app)
    async with (
        app.lifespan(),
        httpx2.AsyncClient(transport=transport, base_url="https://shop.example") as client,
    ):
        inventory = inventory_of(app.container)
        await shop.fill(inventory.catalogue(), inventory.stockroom(), system_context("test"))
        yield client


async def login_headers(http: httpx2.AsyncClient, name: str, password: str) -> dict[str, str]:
    answer = await http.post("/token", data={"username": name, "password": password})
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def test_redaction_is_linear() -> None:
    def cost(length: int) -> float:
        text = "/" + "-eyJ" * length
        began = time.process_time()
        redact(text)
        return time.process_time() - began

    # a text of 16 times the length takes about 16 times as long; a quadratic algorithm would take
    # 256 times as long
    assert min(cost(16_000) for _ in range(3)) < 100 * max(cost(1_000) for _ in range(3))


async def test_demoted_admin_cannot_restore_own_role(
    http: httpx2.AsyncClient,
) -> None:
    admin = await login_headers(http, *ADMIN)
    body = {"username": "eve", "email": "eve@example.com", "password": "another long one"}
    path = f"/users/{(await http.post('/users', json=body)).json()['user_id']}"
    await http.patch(path, json={"roles": ["admin"]}, headers=admin | {"If-Match": '"v1"'})
    eve = await login_headers(http, "eve", body["password"])
    # At this request the gateway confirms the scopes of the token, and not again for 30 s. So the
    # gateway would still accept the PATCH of eve below; only the route can refuse it.
    assert (await http.get("/users", headers=eve)).status_code == 200
    demotion = {"is_active": False, "roles": ["customer"]}
    await http.patch(path, json=demotion, headers=admin | {"If-Match": '"v2"'})

    promotion = {"is_active": True, "roles": ["admin"]}
    answer = await http.patch(path, json=promotion, headers=eve | {"If-Match": '"v3"'})

    assert answer.status_code == 403


async def test_settings_replace_each_limit() -> None:
    settings = read_settings(
        storage="memory",
        rate_limits="on",
        rate_limit_requests="6/30",
        rate_limit_searches="2/20",
        rate_limit_login="1/10",
    )
    app = create_app(settings)
    transport = httpx2.ASGITransport(app)
    async with (
        app.lifespan(),
        httpx2.AsyncClient(transport=transport, base_url="https://shop.example") as http,
    ):
        logins = [await http.post("/token", data={"username": "x"}) for _ in range(2)]
        searches = [await http.get("/products?q=tea") for _ in range(3)]
        reads = [await http.get("/products") for _ in range(3)]

    assert [answer.status_code == 429 for answer in logins] == [False, True]
    assert [answer.status_code for answer in searches] == [200, 200, 429]
    assert [answer.status_code for answer in reads] == [200, 429, 429]
    assert searches[0].headers["ratelimit-policy"] == '"requests";q=6;w=30, "searches";q=2;w=20'
    assert 0 < int(logins[1].headers["retry-after"]) <= 20


async def test_rejected_bodies_are_counted(http: httpx2.AsyncClient) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}

    answers = [
        await http.post("/token/revoke", content=b"%ff", headers=headers) for _ in range(601)
    ]

    assert answers[0].status_code == 400
    assert answers[-1].status_code == 429


async def test_password_change_attempts_are_limited_like_login(
    http: httpx2.AsyncClient,
) -> None:
    admin = await login_headers(http, *ADMIN)
    body = {"current_password": "a wild guess", "new_password": "some new password"}

    answers = [await http.post("/users/me/password", json=body, headers=admin) for _ in range(11)]

    assert [answer.status_code for answer in answers] == [401] * 10 + [429]


async def test_trailing_slash_redirect_stays_on_host(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/products/?limit=1", headers={"Host": "evil.example"})

    assert answer.status_code == 307
    assert answer.headers["location"] == "/products?limit=1"


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/orders/?a=%2F", "/orders?a=%2F"),
        ("/orders//", "/orders"),
        ("/products/a%2Fb%0d%0aX:%201/", "/products/a%2Fb%0d%0aX:%201"),
    ],
)
async def test_trailing_slash_redirect_is_not_counted(
    http: httpx2.AsyncClient, path: str, location: str
) -> None:
    redirects = [await http.post(path) for _ in range(REQUESTS.quota + 1)]
    counted = await http.get("/products?limit=1")

    assert {answer.status_code for answer in redirects} == {307}
    assert redirects[-1].headers["location"] == location
    assert "ratelimit" not in redirects[-1].headers
    assert f"r={REQUESTS.quota - 1};" in counted.headers["ratelimit"]


@pytest.mark.parametrize("path", ["//evil.example/", "//evil.example/x/", "///", "//"])
async def test_redirect_never_leads_to_another_host(http: httpx2.AsyncClient, path: str) -> None:
    answer = await http.get(f"https://shop.example{path}")

    assert answer.status_code == 404
    assert "location" not in answer.headers


async def test_head_equals_get_without_body(http: httpx2.AsyncClient) -> None:
    for path in ("/health", "/products"):
        head, get = await http.head(path), await http.get(path)

        assert head.status_code == 200
        assert head.content == b""
        assert head.headers["content-length"] == get.headers["content-length"]


async def test_idempotency_key_ignores_id_spelling(http: httpx2.AsyncClient) -> None:
    admin = await login_headers(http, *ADMIN) | {"Idempotency-Key": "the-same"}
    product = (await http.get("/products?in_stock=true")).json()["items"][0]
    body = {"product_id": product["product_id"], "quantity": 1, "shipping_address": "Market 1"}
    order = (await http.post("/orders", json=body, headers=admin)).json()
    payment_id = order["payment"]["payment_id"]
    path = f"/payments/{payment_id}"
    await http.post(f"{path}/confirm", json={"payment_method": "sandbox_ok"}, headers=admin)

    refund = {"amount": {"amount": 100, "currency": "EUR"}, "reason": "dented"}
    for spelling in (payment_id, payment_id.upper()):
        await http.post(f"/payments/{spelling}/refunds", json=refund, headers=admin)

    payment = (await http.get(path, headers=admin)).json()
    assert payment["refunded"]["amount"] == 100
