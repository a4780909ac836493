"""Test that each security event is one log line with actor, subject, address and request id."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
import time_machine
from structlog.testing import capture_logs

from markethall.app import Gateway, create_app
from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.ids import new_id
from markethall.shared.security.access_tokens import generate_private_key
from markethall.shared.security.service_tokens import ServiceSigner
from markethall.users.domain.session import REFRESH_GRACE_PERIOD
from tests.test_app import ADMIN, client_of, memory_settings

PASSWORD = "a password that no log may show"
WRONG = "another password that no log may show"
REQUEST_ID = "request-of-this-test"
CLIENT_IP = "127.0.0.1"


@pytest.fixture
def app() -> Gateway:
    return create_app(memory_settings(rate_limits="on"))


@pytest.fixture
async def http(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app) as client:
        client.headers["x-request-id"] = REQUEST_ID
        yield client


@contextmanager
def security_events() -> Iterator[list[dict[str, Any]]]:
    """Yield a list that receives the security events of the block when the block ends.

    Each event is checked for its request id and client IP, and for secrets.
    """
    events: list[dict[str, Any]] = []
    with capture_logs() as lines:
        yield events
    events += [dict(line) for line in lines if line["event"].startswith("security.")]
    for event in events:
        assert event["request_id"] == REQUEST_ID
        assert event["client_ip"] == CLIENT_IP
        assert not {PASSWORD, WRONG} & set(map(str, event.values()))
        assert "eyJ" not in str(event)
        assert "@" not in str(event)


async def register(http: httpx2.AsyncClient) -> str:
    """Register a user, and return the user id."""
    body = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
    return str((await http.post("/users", json=body)).json()["user_id"])


async def sign_in(http: httpx2.AsyncClient, name: str, password: str) -> dict[str, Any]:
    response = await http.post("/token", data={"username": name, "password": password})
    return dict(response.json())


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_failed_logins_are_logged(http: httpx2.AsyncClient) -> None:
    user_id = await register(http)

    with security_events() as events:
        await sign_in(http, "ada@example.com", WRONG)
        await sign_in(http, PASSWORD[:50], WRONG)
        for _ in range(10):
            await sign_in(http, "ada", WRONG)

    assert [(event["subject"], event["reason"]) for event in events] == [
        (f"user:{user_id}", "wrong"),
        (None, "unknown"),
        *[(f"user:{user_id}", "wrong")] * 9,
        (f"user:{user_id}", "delayed"),
    ]
    assert {(e["event"], e["log_level"], e["actor"]) for e in events} == {
        ("security.login_failed", "warning", "anonymous")
    }


async def test_reused_refresh_token_is_logged_once(http: httpx2.AsyncClient) -> None:
    user_id = await register(http)
    tokens = [(await sign_in(http, "ada", PASSWORD))["refresh_token"]]
    for _ in range(2):
        form = {"grant_type": "refresh_token", "refresh_token": tokens[-1]}
        tokens.append((await http.post("/token", data=form)).json()["refresh_token"])

    later = utc_now() + 2 * REFRESH_GRACE_PERIOD
    with security_events() as events, time_machine.travel(later, tick=True):
        for token in (tokens[0], tokens[0], tokens[2]):
            form = {"grant_type": "refresh_token", "refresh_token": token}
            assert (await http.post("/token", data=form)).status_code == 401

    (event,) = events
    assert event["event"] == "security.refresh_token_reused"
    assert event["subject"] == f"user:{user_id}"
    assert event["session_id"]


async def test_changes_of_access_are_logged(http: httpx2.AsyncClient) -> None:
    user_id = await register(http)
    pair = await sign_in(http, ADMIN["admin_email"], ADMIN["admin_password"])
    admin = bearer(pair["access_token"])
    admin_id = (await http.get("/users/me", headers=admin)).json()["user_id"]
    path = f"/users/{user_id}"

    with security_events() as events:
        await http.patch(path, json={"roles": ["staff"]}, headers=admin | {"if-match": '"v1"'})
        await http.patch(path, json={"is_active": False}, headers=admin | {"if-match": '"v2"'})
        await sign_in(http, "ada", PASSWORD)
        await http.patch(path, json={"is_active": True}, headers=admin | {"if-match": '"v3"'})
        # the account is already active, so nothing changes and nothing is logged
        await http.patch(path, json={"is_active": True}, headers=admin | {"if-match": '"v4"'})

    assert [event["event"] for event in events] == [
        "security.roles_changed",
        "security.account_disabled",
        "security.login_failed",
        "security.account_enabled",
    ]
    assert {event["subject"] for event in events} == {f"user:{user_id}"}
    assert [event["actor"] for event in events[:2]] == [f"user:{admin_id}"] * 2
    assert (events[0]["before"], events[0]["after"]) == (("customer",), ("staff",))
    assert events[2]["reason"] == "disabled"


async def test_change_of_password_is_logged(http: httpx2.AsyncClient) -> None:
    user_id = await register(http)
    headers = bearer((await sign_in(http, "ada", PASSWORD))["access_token"])

    with security_events() as events:
        for current in (WRONG, PASSWORD):
            body = {"current_password": current, "new_password": WRONG}
            await http.post("/users/me/password", json=body, headers=headers)

    assert [event["event"] for event in events] == [
        "security.login_failed",
        "security.password_changed",
    ]
    assert {(event["actor"], event["subject"]) for event in events} == {
        (f"user:{user_id}", f"user:{user_id}")
    }


async def test_refused_tokens_are_logged_with_their_defect(
    app: Gateway, http: httpx2.AsyncClient
) -> None:
    await register(http)
    token = (await sign_in(http, "ada", PASSWORD))["access_token"]
    head, body, signature = token.split(".")
    forged = f"{head}.{body}.{signature[:-8]}AAAAAAAA"
    service_token = ServiceSigner(generate_private_key(), utc_now).sign(
        "orders", "users", "get_active_customer", Actor(user_id=new_id())
    )

    with security_events() as events:
        for refused in (forged, "garbage", service_token):
            response = await http.get("/users/me", headers=bearer(refused))
            assert response.status_code == 401
        # a public route accepts a request with an invalid token, but the rejection is logged
        assert (await http.get("/products", headers=bearer(forged))).status_code == 200
        await http.get("/users/me")

    assert [(event["kind"], event["reason"], event["defect"]) for event in events] == [
        ("access", "invalid", "InvalidSignatureError"),
        ("access", "invalid", "DecodeError"),
        # the `typ` in the header of the service token is not that of access tokens
        ("access", "invalid", "ValueError"),
        ("access", "invalid", "InvalidSignatureError"),
    ]
    assert {event["event"] for event in events} == {"security.token_rejected"}
