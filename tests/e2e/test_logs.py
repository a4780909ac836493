"""The log: one JSON line per request with all that is needed, and never a secret."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import pytest

from markethall.shared.security.access_tokens import generate_private_key
from tests.conftest import on_server
from tests.e2e.dedicated_server import dedicated_database, dedicated_server, open_shop, port_of
from tests.e2e.forgeries import Mint
from tests.e2e.raw_http import exchange, request
from tests.e2e.servers import ADMIN, Execute, RunningServer, as_json, restricted_urls
from tests.e2e.shop import PATIENCE, Person, Shop, good

FIELDS = {
    "event", "level", "timestamp", "method", "path", "status", "duration_ms", "client_ip",
    "user_agent", "request_id", "user_id", "context",
}  # fmt: skip
PROXY = "127.0.0.2"


@dataclass(frozen=True)
class Watched:
    """A hall whose secrets are known, and its log."""

    server: RunningServer
    shop: Shop
    database: str
    urls: Mapping[str, str]
    pem: str
    secret: str

    def lines(self) -> list[dict[str, Any]]:
        """The banner for people comes first, then JSON and nothing else."""
        texts = self.server.log.read_text().splitlines()
        first = next(number for number, text in enumerate(texts) if text.startswith("{"))
        return [json.loads(text) for text in texts[first:]]

    async def line(self, request_id: str) -> dict[str, Any]:
        """The one access line of a request; it may be written just after the answer."""
        async with asyncio.timeout(PATIENCE):
            while not (found := self._of(request_id)):
                await asyncio.sleep(0.01)
        assert len(found) == 1
        return found[0]

    def _of(self, request_id: str) -> list[dict[str, Any]]:
        lines = self.lines()
        return [
            line
            for line in lines
            if (line["event"], line.get("request_id")) == ("request", request_id)
        ]


@pytest.fixture(scope="module")
async def logged_server(scratch: Path, server_url: str, template: str) -> AsyncIterator[Watched]:
    pem, secret = generate_private_key(), secrets.token_urlsafe(48)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(dedicated_database(server_url, template))
        urls = await restricted_urls(server_url, url.rpartition("/")[2], Execute(url))
        settings = {
            "database_urls": as_json(urls),
            "access_token_private_key": pem,
            "secret_key": secret,
            "trusted_proxies": f"{PROXY}/32,10.0.0.0/8",
            "log_level": "debug",
        }
        server = stack.enter_context(dedicated_server(scratch, "watched", **settings))
        shop = await stack.enter_async_context(open_shop(server))
        yield Watched(server, shop, url, urls, pem, secret)


CASES: list[tuple[str, str, str, int, str]] = [
    ("GET", "/health", "nobody", 200, "system"),
    ("GET", "/products?limit=1&sort=name", "nobody", 200, "inventory"),
    ("GET", "/users/me", "nobody", 401, "users"),
    ("GET", "/users/me", "buyer", 200, "users"),
    ("GET", "/orders", "buyer", 200, "orders"),
    ("GET", "/stats", "buyer", 403, "system"),
    ("GET", "/payments/x", "buyer", 422, "payments"),
    ("POST", "/orders", "buyer", 422, "orders"),
    ("HEAD", "/health", "nobody", 200, "system"),
    ("DELETE", "/token", "nobody", 405, "users"),
    ("GET", "/nothing/here", "nobody", 404, "system"),
    ("GET", "/users/%00", "nobody", 404, "users"),
]


@pytest.mark.parametrize(("method", "path", "who", "status", "context"), CASES)
async def test_each_request_has_one_complete_access_log_line(
    logged_server: Watched, method: str, path: str, who: str, status: int, context: str
) -> None:
    person = await logged_server.shop.customer() if who == "buyer" else None
    request_id = f"test-{secrets.token_hex(8)}"
    headers = {"X-Request-ID": request_id, "User-Agent": "a test/1.0"}

    answer = await logged_server.shop.send(method, path, person, headers=headers)

    line = await logged_server.line(request_id)
    assert answer.status_code == status
    assert answer.headers["x-request-id"] == request_id
    assert set(line) == FIELDS
    assert (line["method"], line["status"], line["context"]) == (method, status, context)
    assert line["path"] == path.partition("?")[0].replace("%00", "\x00")
    assert line["user_id"] == (person.user_id if person else None)
    assert (line["user_agent"], line["client_ip"]) == ("a test/1.0", "127.0.0.1")
    assert 0 < line["duration_ms"] < 60_000


@pytest.mark.parametrize(
    ("through", "forwarded", "seen"),
    [
        ("127.0.0.1", "203.0.113.9", "127.0.0.1"),
        (PROXY, "203.0.113.9", "203.0.113.9"),
        (PROXY, "1.1.1.1, 203.0.113.9", "203.0.113.9"),
        (PROXY, "203.0.113.9, 10.1.2.3", "203.0.113.9"),
        (PROXY, "spoofed, 10.1.2.3", "10.1.2.3"),
        (PROXY, "2001:db8::1", "2001:db8::1"),
        (PROXY, "garbage", PROXY),
        (PROXY, "", PROXY),
    ],
)
async def test_forwarded_address_is_accepted_from_trusted_proxy_only(
    logged_server: Watched, through: str, forwarded: str, seen: str
) -> None:
    request_id = f"test-{secrets.token_hex(8)}"
    headers = {"X-Request-ID": request_id, "X-Forwarded-For": forwarded}
    transport = httpx2.AsyncHTTPTransport(local_address=through)

    async with httpx2.AsyncClient(transport=transport) as client:
        await client.get(logged_server.server.url("/health"), headers=headers)

    assert (await logged_server.line(request_id))["client_ip"] == seen


@pytest.mark.parametrize(
    "strange", ["short", "x" * 129, "has space inside", 'quote"quote"', "semi;colon;s", ""]
)
async def test_invalid_request_id_is_replaced(logged_server: Watched, strange: str) -> None:
    answer = await logged_server.shop.get("/health", headers={"X-Request-ID": strange})

    given = answer.headers["x-request-id"]
    assert given != strange
    assert (await logged_server.line(given))["path"] == "/health"


async def test_log_lines_cannot_be_forged(logged_server: Watched) -> None:
    """What a client sends stays inside its JSON string."""
    evil = b'x"}\\n{"event":"request","request_id":"made-up-line"'
    port = port_of(logged_server.server)

    for name in (b"User-Agent", b"X-Request-ID", b"X-Forwarded-For"):
        await exchange(port, request(b"GET", b"/health", [(name, evil)]))
    await exchange(port, request(b"GET", b"/%0a%7b%22request_id%22:%22made-up-line%22%7d"))

    assert not any(line.get("request_id") == "made-up-line" for line in logged_server.lines())


async def test_no_secret_is_logged(logged_server: Watched) -> None:
    """Logins, failures, forgeries, secrets in the wrong place, and a database that goes away."""
    spoken = await much_ado(logged_server)
    await without_database(logged_server)
    told = {
        "admin password": ADMIN[1],
        "secret": logged_server.secret,
        "signing key": logged_server.pem.splitlines()[1],
        **{name: urlsplit(url).password or "" for name, url in logged_server.urls.items()},
        **spoken,
    }

    log = logged_server.server.log.read_text()

    assert {name for name, text in told.items() if len(text) < 8} == set()
    assert {name for name, text in told.items() if text in log} == set()
    assert "request.failed" not in log
    assert len(logged_server.lines()) > 100


async def much_ado(logged_server: Watched) -> dict[str, str]:
    """Everything that happens to secrets in a shop; which they were."""
    shop, buyer = logged_server.shop, await logged_server.shop.customer()
    pair = await shop.sign_in(buyer.name, buyer.password)
    wrong, new = f"wrong-{secrets.token_hex(8)}", f"new-{secrets.token_hex(8)}"
    key = f"key-{secrets.token_hex(8)}"
    await attempts(shop, buyer, pair, wrong)
    change = {"current_password": buyer.password, "new_password": new}
    await shop.send("POST", "/users/me/password", buyer, json=change)
    await sell(shop, buyer, key)
    await misplaced(logged_server, buyer, wrong)
    return {
        "password": buyer.password,
        "wrong password": wrong,
        "new password": new,
        "access token": pair["access_token"],
        "signature": buyer.token.rpartition(".")[2],
        "refresh token": pair["refresh_token"],
        "idempotency key": key,
    }


async def attempts(shop: Shop, buyer: Person, pair: dict[str, Any], wrong: str) -> None:
    for form in (
        {"grant_type": "password", "username": buyer.name, "password": wrong},
        {"grant_type": "password", "username": wrong, "password": wrong},
        {"grant_type": "password", "username": buyer.name, "passwort": wrong},
        {"grant_type": wrong, "password": wrong},
        {"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]},
        {"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]},
    ):
        await shop.send("POST", "/token", data=form)
    await shop.send("POST", "/token/revoke", data={"token": pair["refresh_token"]})
    await shop.send("POST", "/users", json={"username": "x", "password": wrong, "email": wrong})


async def sell(shop: Shop, buyer: Person, key: str) -> None:
    product = await shop.product()
    order = good(await shop.place(buyer, product["product_id"], key=key), 201)
    await shop.confirm(buyer, order["payment"]["payment_id"], "sandbox_webhook_first")


async def misplaced(logged_server: Watched, buyer: Person, wrong: str) -> None:
    """Secrets where they do not belong, and forged ones."""
    port, token = port_of(logged_server.server), buyer.token.encode()
    bearer = b"Bearer " + token
    for target in (b"/users/" + token, b"/users?access_token=" + token, b"/orders/" + token):
        await exchange(port, request(b"GET", target, [(b"User-Agent", bearer)]))
    userinfo = f"postgresql://somebody:{quote(wrong)}@db/x".encode()
    await exchange(port, request(b"GET", b"/health", [(b"User-Agent", userinfo)]))
    for _, forged in Mint(buyer.token, logged_server.pem).forged():
        await exchange(port, request(b"GET", b"/stats", [(b"Authorization", b"Bearer " + forged)]))
    await exchange(port, request(b"GET", b"/stats", [(b"Authorization", b"Basic " + token)]))


async def without_database(logged_server: Watched) -> None:
    """It is away and comes back; drivers like to tell whom they could not reach."""
    server, _, name = logged_server.database.rpartition("/")
    elsewhere = f"{server}/postgres"
    await on_server(elsewhere, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await on_server(
        elsewhere,
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    async with asyncio.timeout(PATIENCE):
        while (await logged_server.shop.get("/ready")).status_code != 503:
            await asyncio.sleep(0.02)
        while "worker.unavailable" not in logged_server.server.log.read_text():
            await asyncio.sleep(0.02)
    await on_server(elsewhere, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    async with asyncio.timeout(PATIENCE):
        while (await logged_server.shop.get("/ready")).status_code != 200:
            await asyncio.sleep(0.02)
