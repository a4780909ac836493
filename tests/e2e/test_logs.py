"""Test the log: one complete JSON line per request, and no secrets."""

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
from tests.e2e.forgeries import TokenForger
from tests.e2e.raw_http import exchange, request
from tests.e2e.servers import ADMIN, Execute, RunningServer, as_json, restricted_urls
from tests.e2e.shop import TIMEOUT_SECONDS, Person, Shop, expect_status

FIELDS = {
    "event", "level", "timestamp", "method", "path", "status", "duration_ms", "client_ip",
    "user_agent", "request_id", "user_id", "context",
}  # fmt: skip
PROXY = "127.0.0.2"


@dataclass(frozen=True)
class LoggedServer:
    """A server with a log, and the secrets that must not be in this log."""

    server: RunningServer
    shop: Shop
    database: str
    urls: Mapping[str, str]
    pem: str
    secret: str

    def lines(self) -> list[dict[str, Any]]:
        """Return the JSON lines of the log, without the start banner at its beginning."""
        texts = self.server.log.read_text().splitlines()
        first = next(number for number, text in enumerate(texts) if text.startswith("{"))
        return [json.loads(text) for text in texts[first:]]

    async def line(self, request_id: str) -> dict[str, Any]:
        """Wait for the access log line of a request; the server may write it after the response."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not (found := self._lines_of(request_id)):
                await asyncio.sleep(0.01)
        assert len(found) == 1
        return found[0]

    def _lines_of(self, request_id: str) -> list[dict[str, Any]]:
        lines = self.lines()
        return [
            line
            for line in lines
            if (line["event"], line.get("request_id")) == ("request", request_id)
        ]


@pytest.fixture(scope="module")
async def logged_server(
    scratch: Path, server_url: str, template: str
) -> AsyncIterator[LoggedServer]:
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
        server = stack.enter_context(dedicated_server(scratch, "logged", **settings))
        shop = await stack.enter_async_context(open_shop(server))
        yield LoggedServer(server, shop, url, urls, pem, secret)


CASES: list[tuple[str, str, str, int, str]] = [
    ("GET", "/health", "anonymous", 200, "system"),
    ("GET", "/products?limit=1&sort=name", "anonymous", 200, "inventory"),
    ("GET", "/users/me", "anonymous", 401, "users"),
    ("GET", "/users/me", "buyer", 200, "users"),
    ("GET", "/orders", "buyer", 200, "orders"),
    ("GET", "/stats", "buyer", 403, "system"),
    ("GET", "/payments/x", "buyer", 422, "payments"),
    ("POST", "/orders", "buyer", 422, "orders"),
    ("HEAD", "/health", "anonymous", 200, "system"),
    ("DELETE", "/token", "anonymous", 405, "users"),
    ("GET", "/nothing/here", "anonymous", 404, "system"),
    ("GET", "/users/%00", "anonymous", 404, "users"),
]


@pytest.mark.parametrize(("method", "path", "user", "status", "context"), CASES)
async def test_each_request_has_one_complete_access_log_line(
    logged_server: LoggedServer, method: str, path: str, user: str, status: int, context: str
) -> None:
    person = await logged_server.shop.customer() if user == "buyer" else None
    request_id = f"test-{secrets.token_hex(16)}"
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
    ("peer", "forwarded", "expected"),
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
    logged_server: LoggedServer, peer: str, forwarded: str, expected: str
) -> None:
    request_id = f"test-{secrets.token_hex(16)}"
    headers = {"X-Request-ID": request_id, "X-Forwarded-For": forwarded}
    transport = httpx2.AsyncHTTPTransport(local_address=peer)

    async with httpx2.AsyncClient(transport=transport) as client:
        await client.get(logged_server.server.url("/health"), headers=headers)

    assert (await logged_server.line(request_id))["client_ip"] == expected


@pytest.mark.parametrize(
    "invalid", ["short", "x" * 129, "has space inside", 'quote"quote"', "semi;colon;s", ""]
)
async def test_invalid_request_id_is_replaced(logged_server: LoggedServer, invalid: str) -> None:
    answer = await logged_server.shop.get("/health", headers={"X-Request-ID": invalid})

    request_id = answer.headers["x-request-id"]
    assert request_id != invalid
    assert (await logged_server.line(request_id))["path"] == "/health"


async def test_log_lines_cannot_be_forged(logged_server: LoggedServer) -> None:
    """Input of a client must stay inside a JSON string of its log line."""
    injected = b'x"}\\n{"event":"request","request_id":"forged-line"'
    port = port_of(logged_server.server)

    for name in (b"User-Agent", b"X-Request-ID", b"X-Forwarded-For"):
        await exchange(port, request(b"GET", b"/health", [(name, injected)]))
    await exchange(port, request(b"GET", b"/%0a%7b%22request_id%22:%22forged-line%22%7d"))

    assert not any(line.get("request_id") == "forged-line" for line in logged_server.lines())


async def test_no_secret_is_logged(logged_server: LoggedServer) -> None:
    """Log in, fail to log in, and send forged tokens and secrets in wrong places.

    Also interrupt the database once, because a logged error could contain its URL.
    """
    used_secrets = await use_secrets(logged_server)
    await interrupt_database(logged_server)
    all_secrets = {
        "admin password": ADMIN[1],
        "secret": logged_server.secret,
        "signing key": logged_server.pem.splitlines()[1],
        **{name: urlsplit(url).password or "" for name, url in logged_server.urls.items()},
        **used_secrets,
    }

    log = logged_server.server.log.read_text()

    assert {name for name, text in all_secrets.items() if len(text) < 8} == set()
    assert {name for name, text in all_secrets.items() if text in log} == set()
    assert "request.failed" not in log
    assert len(logged_server.lines()) > 100


async def use_secrets(logged_server: LoggedServer) -> dict[str, str]:
    """Send the requests with secrets. Return the value of each secret by its name."""
    shop, buyer = logged_server.shop, await logged_server.shop.customer()
    pair = await shop.sign_in(buyer.name, buyer.password)
    wrong, new = f"wrong-{secrets.token_hex(16)}", f"new-{secrets.token_hex(16)}"
    key = f"key-{secrets.token_hex(16)}"
    await log_in_with_errors(shop, buyer, pair, wrong)
    change = {"current_password": buyer.password, "new_password": new}
    await shop.send("POST", "/users/me/password", buyer, json=change)
    await sell(shop, buyer, key)
    await send_misplaced_secrets(logged_server, buyer, wrong)
    return {
        "password": buyer.password,
        "wrong password": wrong,
        "new password": new,
        "access token": pair["access_token"],
        "signature": buyer.token.rpartition(".")[2],
        "refresh token": pair["refresh_token"],
        "idempotency key": key,
    }


async def log_in_with_errors(shop: Shop, buyer: Person, pair: dict[str, Any], wrong: str) -> None:
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
    order = expect_status(await shop.place(buyer, product["product_id"], key=key), 201)
    await shop.confirm(buyer, order["payment"]["payment_id"], "sandbox_webhook_first")


async def send_misplaced_secrets(logged_server: LoggedServer, buyer: Person, wrong: str) -> None:
    """Send secrets in paths, queries and headers, and forged tokens."""
    port, token = port_of(logged_server.server), buyer.token.encode()
    bearer = b"Bearer " + token
    for target in (b"/users/" + token, b"/users?access_token=" + token, b"/orders/" + token):
        await exchange(port, request(b"GET", target, [(b"User-Agent", bearer)]))
    userinfo = f"postgresql://user:{quote(wrong)}@db/x".encode()
    await exchange(port, request(b"GET", b"/health", [(b"User-Agent", userinfo)]))
    for _, forged in TokenForger(buyer.token, logged_server.pem).forge():
        await exchange(port, request(b"GET", b"/stats", [(b"Authorization", b"Bearer " + forged)]))
    await exchange(port, request(b"GET", b"/stats", [(b"Authorization", b"Basic " + token)]))


async def interrupt_database(logged_server: LoggedServer) -> None:
    """Reject all database connections until the server has logged the outage; then allow them."""
    server, _, name = logged_server.database.rpartition("/")
    admin_url = f"{server}/postgres"
    await on_server(admin_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await on_server(
        admin_url,
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while (await logged_server.shop.get("/ready")).status_code != 503:
            await asyncio.sleep(0.02)
        while "worker.unavailable" not in logged_server.server.log.read_text():
            await asyncio.sleep(0.02)
    await on_server(admin_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while (await logged_server.shop.get("/ready")).status_code != 200:
            await asyncio.sleep(0.02)
