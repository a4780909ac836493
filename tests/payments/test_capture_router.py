"""The HTTP API of captures and voids: statuses, bodies, errors."""

from typing import Any

import httpx2
import pytest

from markethall.payments.contract.api import PaymentView
from markethall.payments.ports import PaymentGatewayTimeout
from markethall.shared.kernel.ids import new_id
from tests.payments.conftest import PaymentsApp, build_payments_app
from tests.payments.test_router import Client, client

__all__ = ["client"]  # a fixture


@pytest.fixture
def wiring() -> tuple[str, PaymentsApp]:
    return "memory", build_payments_app("memory", None, payments_capture="on_fulfilment")


async def capture(
    client: Client, payment: PaymentView, body: Any = None, key: str = "key"
) -> httpx2.Response:
    path = f"/payments/{payment.payment_id}/capture"
    return await client.post(path, body, role="staff", idempotency_key=key)


async def void(client: Client, payment: PaymentView, key: str = "key") -> httpx2.Response:
    path = f"/payments/{payment.payment_id}/void"
    return await client.post(path, None, role="staff", idempotency_key=key)


def amount(value: int, currency: str = "EUR") -> dict[str, Any]:
    return {"amount": {"amount": value, "currency": currency}}


async def test_capture_returns_the_payment(client: Client) -> None:
    payment = await client.payments_app.authorized(1000)

    part = await capture(client, payment, amount(600), "first")
    again = await capture(client, payment, amount(600), "first")
    rest = await capture(client, payment, {}, "second")

    assert (part.status_code, part.json()["status"]) == (200, "authorized")
    assert part.json()["captured"] == {"amount": 600, "currency": "EUR"}
    assert again.content == part.content
    assert (rest.json()["status"], rest.json()["captured"]["amount"]) == ("captured", 1000)


async def test_capture_without_body_takes_all(client: Client) -> None:
    payment = await client.payments_app.authorized(1000)

    response = await client.http.post(
        f"/payments/{payment.payment_id}/capture",
        headers=client.headers(None, "staff") | {"idempotency-key": "key"},
    )

    assert (response.status_code, response.json()["captured"]["amount"]) == (200, 1000)


async def test_final_capture_releases_the_rest(client: Client) -> None:
    payment = await client.payments_app.authorized(1000)

    response = await capture(client, payment, amount(600) | {"final": True})

    assert (response.status_code, response.json()["status"]) == (200, "captured")
    assert response.json()["authorized"] == {"amount": 600, "currency": "EUR"}


async def test_void_returns_the_payment(client: Client) -> None:
    payment = await client.payments_app.authorized(1000)

    response = await void(client, payment)

    assert (response.status_code, response.json()["status"]) == (200, "voided")


@pytest.mark.parametrize("command", [capture, void])
async def test_lost_answer_is_202_and_a_retry_asks_again(client: Client, command: Any) -> None:
    payment = await client.payments_app.authorized(1000)
    client.payments_app.gateway.after = PaymentGatewayTimeout()

    unknown = await command(client, payment)
    other = await command(client, payment, key="other")
    await client.payments_app.reconcile()
    settled = await command(client, payment)

    assert (unknown.status_code, unknown.json()["status"]) == (202, "authorized")
    assert (other.status_code, other.json()["code"]) == (409, "payments.in_progress")
    assert other.headers["retry-after"] == "5"
    assert settled.status_code == 200
    assert settled.json()["status"] in {"captured", "voided"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (amount(0), 422, "request.invalid"),
        (amount(-5), 422, "request.invalid"),
        (amount(2**63), 422, "request.invalid"),
        (amount(1, "XYZ"), 422, "request.invalid"),
        (amount(1, "USD"), 422, "money.currency_mismatch"),
        ({"amount": 5}, 422, "request.invalid"),
        ({"final": "yes"}, 422, "request.invalid"),
        ({"unknown": 1}, 422, "request.invalid"),
        ([], 422, "request.invalid"),
        (amount(1001), 409, "payments.capture_exceeds_authorized"),
    ],
)
async def test_wrong_capture_is_rejected(client: Client, body: Any, status: int, code: str) -> None:
    payment = await client.payments_app.authorized(1000)

    response = await capture(client, payment, body)

    assert response.status_code == status
    assert response.json()["code"] == code
    assert (await client.payments_app.current(payment)).captured.amount == 0


@pytest.mark.parametrize("command", [capture, void])
async def test_command_on_another_status_names_the_allowed_ones(
    client: Client, command: Any
) -> None:
    payment = await client.payments_app.open(1000)

    response = await command(client, payment)

    assert (response.status_code, response.json()["code"]) == (409, "payments.invalid_transition")
    details = {"status": "created", "allowed": ["cancel", "confirm", "expire"]}
    assert response.json()["details"] == details


@pytest.mark.parametrize("name", ["capture", "void"])
async def test_only_staff_capture_or_void_with_a_key(client: Client, name: str) -> None:
    payment = await client.payments_app.authorized(1000)
    path = f"/payments/{payment.payment_id}/{name}"

    anonymous = await client.post(path, {}, idempotency_key="key")
    owner = await client.post(path, {}, payment.user_id, idempotency_key="key")
    without_key = await client.post(path, {}, role="staff")
    unknown = await client.post(
        f"/payments/{new_id()}/{name}", {}, role="staff", idempotency_key="key"
    )

    answers = (anonymous, owner, without_key, unknown)
    assert [answer.status_code for answer in answers] == [401, 403, 400, 404]
