"""The HTTP API of payments: statuses, headers, bodies, errors."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from structlog.testing import capture_logs

from markethall.payments.contract.api import PaymentView
from markethall.payments.router import router
from markethall.shared.http.gateway import GatewayMiddleware, TokenVerifiers
from markethall.shared.http.gateway_config import GatewayConfig
from markethall.shared.http.problem_details import (
    http_exception_handler,
    problem_handler,
    validation_handler,
)
from markethall.shared.http.rate_limits import RateLimiter
from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.scopes import scopes_for_roles
from markethall.shared.persistence.redis_client import RedisClient
from markethall.shared.security.access_tokens import (
    AccessTokenSigner,
    AccessTokenVerifier,
    generate_private_key,
)
from markethall.shared.security.jwks import LocalJwks, UserTokenVerifier
from tests.payments.conftest import PaymentsApp

ISSUER, AUDIENCE = "https://markethall.example", "markethall"


@dataclass
class Client:
    payments_app: PaymentsApp
    http: httpx2.AsyncClient
    signer: AccessTokenSigner

    async def get(self, path: str, user_id: UUID | None = None, role: str = "") -> httpx2.Response:
        return await self.http.get(path, headers=self.headers(user_id, role))

    async def post(
        self,
        path: str,
        body: Any,
        user_id: UUID | None = None,
        role: str = "",
        **headers: str,
    ) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(path, json=body, headers=self.headers(user_id, role) | named)

    async def confirm(
        self, payment: PaymentView, method: str = "sandbox_ok", key: str = "key"
    ) -> httpx2.Response:
        path = f"/payments/{payment.payment_id}/confirm"
        body = {"payment_method": method}
        return await self.post(path, body, payment.user_id, idempotency_key=key)

    async def refund(self, payment: PaymentView, body: Any, key: str = "key") -> httpx2.Response:
        path = f"/payments/{payment.payment_id}/refunds"
        return await self.post(path, body, role="staff", idempotency_key=key)

    def headers(self, user_id: UUID | None, role: str) -> dict[str, str]:
        if user_id is None and not role:
            return {}
        roles = (role or "customer",)
        who = Actor(user_id=user_id or STAFF_ID, roles=roles, scopes=scopes_for_roles(roles))
        return {"authorization": f"Bearer {self.signer.sign(who)}"}


STAFF_ID = new_id()


LEDGER_PATHS = (
    "/transactions",
    "/transactions/export.csv",
    "/ledger/accounts",
    "/ledger/trial-balance",
    "/ledger/verify",
)


@pytest.fixture
async def client(payments_app: PaymentsApp) -> AsyncIterator[Client]:
    signer = AccessTokenSigner(
        generate_private_key(), ISSUER, AUDIENCE, timedelta(minutes=15), utc_now
    )
    http = httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app_of(payments_app, signer)), base_url="http://testserver"
    )
    async with http:
        yield Client(payments_app, http, signer)


def app_of(payments_app: PaymentsApp, signer: AccessTokenSigner) -> FastAPI:
    gateway_config = GatewayConfig(
        max_body_bytes=1024 * 1024, body_timeout_seconds=60, trusted_proxies=(), context_by_path={}
    )
    limits = RateLimiter("off", RedisClient(None))
    user_tokens = UserTokenVerifier(
        AccessTokenVerifier(signer.jwks, ISSUER, AUDIENCE, utc_now), LocalJwks(signer.jwks)
    )
    token_verifiers = TokenVerifiers(lambda: user_tokens)
    gateway = Middleware(
        GatewayMiddleware, config=gateway_config, verifiers=token_verifiers, rate_limiter=limits
    )
    handlers: Any = {
        DomainError: problem_handler,
        RequestValidationError: validation_handler,
        HTTPException: http_exception_handler,
    }
    app = FastAPI(exception_handlers=handlers, middleware=[gateway])
    app.state.contexts = {"payments": payments_app.container}
    app.include_router(router)
    return app


async def test_payment_representation(client: Client) -> None:
    payment = await client.payments_app.open(1999)

    response = await client.get(f"/payments/{payment.payment_id}", payment.user_id)

    assert response.status_code == 200
    assert response.headers["etag"] == '"v1"'
    assert response.headers["cache-control"] == "no-store"
    assert response.json() == {
        "payment_id": str(payment.payment_id),
        "order_id": str(payment.order_id),
        "user_id": str(payment.user_id),
        "status": "created",
        "amount": {"amount": 1999, "currency": "EUR"},
        "authorized": {"amount": 0, "currency": "EUR"},
        "captured": {"amount": 0, "currency": "EUR"},
        "refunded": {"amount": 0, "currency": "EUR"},
        "provider": "sandbox",
        "failure_code": None,
        "next_action": None,
        "dispute": None,
        "expires_at": payment.model_dump(mode="json")["expires_at"],
        "created_at": payment.model_dump(mode="json")["created_at"],
        "version": 1,
    }


async def test_confirm_returns_captured_payment(client: Client) -> None:
    payment = await client.payments_app.open()

    response = await client.confirm(payment)

    assert (response.status_code, response.json()["status"]) == (200, "captured")
    assert "idempotency-replayed" not in response.headers


async def test_same_key_gives_same_response(client: Client) -> None:
    payment = await client.payments_app.open()
    first = await client.confirm(payment)

    again = await client.confirm(payment)

    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"


async def test_the_same_key_with_another_method_is_rejected(client: Client) -> None:
    payment = await client.payments_app.open()
    await client.confirm(payment, "sandbox_declined")

    response = await client.confirm(payment, "sandbox_ok")

    assert_problem(response, 422, "idempotency.payload_mismatch")


async def test_decline_is_a_200_response(client: Client) -> None:
    payment = await client.payments_app.open()

    response = await client.confirm(payment, "sandbox_declined")

    assert response.status_code == 200
    assert response.json()["failure_code"] == "card_declined"


async def test_provider_timeout_returns_202_unknown(client: Client) -> None:
    payment = await client.payments_app.open()

    response = await client.confirm(payment, "sandbox_timeout_after")
    again = await client.confirm(payment, key="another")

    assert (response.status_code, response.json()["status"]) == (202, "unknown")
    assert_problem(again, 409, "payments.in_progress")
    assert again.headers["retry-after"] == "5"


async def test_second_confirm_is_rejected(client: Client) -> None:
    payment = await client.payments_app.open()
    await client.confirm(payment)

    response = await client.confirm(payment, key="another")

    assert_problem(response, 409, "payments.invalid_transition")
    assert response.json()["details"] == {"status": "captured", "allowed": []}


async def test_confirm_requires_idempotency_key(client: Client) -> None:
    payment = await client.payments_app.open()
    path = f"/payments/{payment.payment_id}/confirm"

    response = await client.post(path, {"payment_method": "sandbox_ok"}, payment.user_id)

    assert_problem(response, 400, "idempotency.key_missing")


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"payment_method": 1},
        {"payment_method": ""},
        {"payment_method": "x" * 101},
        {"payment_method": "a\x00b"},
        {"payment_method": "sandbox_ok", "amount": 1},
    ],
)
async def test_invalid_body_is_rejected(client: Client, body: Any) -> None:
    payment = await client.payments_app.open()
    path = f"/payments/{payment.payment_id}/confirm"

    response = await client.post(path, body, payment.user_id, idempotency_key="key")

    assert_problem(response, 422, "request.invalid")


async def test_an_unknown_method_is_rejected(client: Client) -> None:
    payment = await client.payments_app.open()

    assert_problem(await client.confirm(payment, "gold"), 422, "payments.unknown_method")


async def test_missing_token_is_rejected(client: Client) -> None:
    payment = await client.payments_app.open()

    for path in ("/payments", f"/payments/{payment.payment_id}", "/transactions"):
        response = await client.get(path)
        assert_problem(response, 401, "auth.unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")


async def test_staff_routes_reject_customers(client: Client) -> None:
    payment = await client.payments_app.paid()
    refunds = f"/payments/{payment.payment_id}/refunds"

    for path in (*LEDGER_PATHS, refunds):
        response = await client.get(path, payment.user_id)
        assert_problem(response, 403, "auth.forbidden")
        assert response.json()["details"] == {"scope": "payments:manage"}


async def test_other_customers_payment_looks_absent(client: Client) -> None:
    payment, stranger = await client.payments_app.open(), new_id()

    theirs = await client.get(f"/payments/{payment.payment_id}", stranger)
    absent = await client.get(f"/payments/{new_id()}", stranger)

    assert_problem(theirs, 404, "payments.not_found")
    assert theirs.json()["detail"] == absent.json()["detail"]


async def test_invalid_id_is_rejected(client: Client) -> None:
    assert_problem(await client.get("/payments/7", new_id()), 422, "request.invalid")


async def test_customers_list_own_payments_and_staff_all(client: Client) -> None:
    payment = await client.payments_app.open()
    await client.payments_app.open()

    own = await client.get("/payments", payment.user_id)
    everything = await client.get("/payments?limit=1&status=created", role="staff")

    assert [one["payment_id"] for one in own.json()["items"]] == [str(payment.payment_id)]
    assert own.json()["next_cursor"] is None
    assert everything.json()["next_cursor"]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "status=paid", "sort=amount", "page=2"])
async def test_an_unknown_query_is_rejected(client: Client, query: str) -> None:
    assert_problem(await client.get(f"/payments?{query}", new_id()), 422, "request.invalid")


async def test_a_refund_is_made_and_found(client: Client) -> None:
    payment = await client.payments_app.paid(1000)
    some = {"amount": 400, "currency": "EUR"}

    response = await client.refund(payment, {"amount": some, "reason": "damaged"})
    found = await client.get(response.headers["location"], role="staff")
    listed = await client.get(f"/payments/{payment.payment_id}/refunds", role="staff")

    assert response.status_code == 201
    assert response.json()["amount"] == some
    assert response.json()["status"] == "succeeded"
    assert found.json() == response.json()
    assert listed.json()["items"] == [response.json()]


async def test_refund_is_logged_once(client: Client) -> None:
    payment = await client.payments_app.paid(1000)
    some = {"amount": 400, "currency": "EUR"}

    with capture_logs() as lines:
        first = await client.refund(payment, {"amount": some, "reason": "damaged"})
        await client.refund(payment, {"amount": some, "reason": "damaged"})

    (event,) = [line for line in lines if line["event"].startswith("security.")]
    assert event == {
        "event": "security.refund_requested",
        "log_level": "info",
        "actor": f"user:{STAFF_ID}",
        "client_ip": "127.0.0.1",
        "request_id": first.headers["x-request-id"],
        "subject": f"payment:{payment.payment_id}",
        "refund_id": first.json()["refund_id"],
        **some,
    }


async def test_refund_above_captured_is_rejected(client: Client) -> None:
    payment = await client.payments_app.paid(1000)
    too_much = {"amount": {"amount": 1001, "currency": "EUR"}, "reason": "damaged"}

    response = await client.refund(payment, too_much)

    assert_problem(response, 409, "payments.refund_exceeds_captured")
    assert response.json()["details"]["refundable"] == {"amount": 1000, "currency": "EUR"}


@pytest.mark.parametrize(
    "body",
    [
        {"reason": ""},
        {"amount": {"amount": 0, "currency": "EUR"}, "reason": "x"},
        {"amount": {"amount": 1.0, "currency": "EUR"}, "reason": "x"},
        {"amount": {"amount": 1, "currency": "XXX"}, "reason": "x"},
        {"amount": 5, "reason": "x"},
    ],
)
async def test_invalid_refund_is_rejected(client: Client, body: Any) -> None:
    payment = await client.payments_app.paid(1000)

    assert_problem(await client.refund(payment, body), 422, "request.invalid")


async def test_signed_webhook_is_accepted(client: Client) -> None:
    body = b'{"event_id": "evt_1", "type": "payout.paid"}'
    signature = client.payments_app.webhooks.compute_signature(body, client.payments_app.clock())
    headers = {"Sandbox-Signature": signature, "Content-Type": "application/json"}

    first = await client.http.post("/payments/webhooks/sandbox", content=body, headers=headers)
    second = await client.http.post("/payments/webhooks/sandbox", content=body, headers=headers)

    assert (first.status_code, first.json()["duplicate"]) == (200, False)
    assert (second.status_code, second.json()["duplicate"]) == (200, True)


async def test_an_unsigned_webhook_is_rejected(client: Client) -> None:
    response = await client.post("/payments/webhooks/sandbox", {})
    unknown = await client.post("/payments/webhooks/other", {})

    assert_problem(response, 401, "payments.webhook_signature_invalid")
    assert_problem(unknown, 404, "payments.unknown_provider")


async def test_export_of_the_ledger_is_a_file(client: Client) -> None:
    await client.payments_app.paid(1000)

    response = await client.get("/transactions/export.csv?kind=capture", role="staff:payments")

    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="transactions.csv"'
    assert response.text.count("\r\n") == 3


async def test_trial_balance_is_readable_by_staff(client: Client) -> None:
    await client.payments_app.paid(1000)

    response = await client.get("/ledger/trial-balance", role="staff:payments")

    assert response.json() == {
        "start_date": "2026-11-21",
        "end_date": "2026-11-21",
        "starts_at": "2026-11-21T00:00:00Z",
        "ends_at": "2026-11-22T00:00:00Z",
        "rows": [
            {"account": "customers:payments", "kind": "liability"} | euros(0, 0, 1000, -1000),
            {"account": "provider:sandbox", "kind": "asset"} | euros(0, 1000, 0, 1000),
        ],
        "totals": [euros(0, 1000, 1000, 0)],
    }


def euros(*amounts: int) -> dict[str, Any]:
    names = ("opening", "debits", "credits", "closing")
    return {
        name: {"amount": amount, "currency": "EUR"}
        for name, amount in zip(names, amounts, strict=True)
    }


@pytest.mark.parametrize(
    "path",
    [
        "/ledger/trial-balance?start_date=2026-11-30&end_date=2026-11-29",
        "/ledger/trial-balance?start_date=1700000000",
        "/ledger/trial-balance?end_date=9999-12-31",
        "/ledger/trial-balance?end_date=2026-02-30",
        "/ledger/trial-balance?end_date=2026-11-30T00:00:00Z",
        "/ledger/trial-balance?date=2026-11-30",
        "/transactions?kind=gift",
        "/transactions?created_after=yesterday",
        "/transactions?account=%00",
        "/transactions/export.csv?limit=5",
    ],
)
async def test_invalid_query_of_the_ledger_is_rejected(client: Client, path: str) -> None:
    response = await client.get(path, role="staff:payments")

    assert_problem(response, 422, "request.invalid")


async def test_ledger_is_readable_by_staff(client: Client) -> None:
    payment = await client.payments_app.paid(1000)

    postings = await client.get("/transactions", role="staff:payments")
    accounts = await client.get("/ledger/accounts", role="staff:payments")
    report = await client.get("/ledger/verify", role="staff:payments")
    operations = await client.get(f"/payments/{payment.payment_id}/operations", payment.user_id)

    assert [entry["amount"]["amount"] for entry in postings.json()["items"][0]["entries"]] == [
        1000,
        -1000,
    ]
    assert {one["account"]: one["kind"] for one in accounts.json()["items"]} == {
        "provider:sandbox": "asset",
        "customers:payments": "liability",
    }
    assert (report.json()["balanced"], report.json()["intact"]) == (True, True)
    assert report.json()["chains"][0]["hash"] == postings.json()["items"][0]["hash"]
    assert operations.json()["items"][0]["status"] == "succeeded"


def assert_problem(response: httpx2.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
