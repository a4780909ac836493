"""The HTTP API of saved payment methods."""

from typing import Any

from markethall.shared.kernel.ids import new_id
from tests.payments.conftest import PaymentsApp
from tests.payments.test_router import Client, client

__all__ = ["client"]


async def save(client: Client, payments_app: PaymentsApp, user_id: Any) -> Any:
    payment = await payments_app.open(user_id=user_id)
    body = {"payment_method": "sandbox_ok", "save_payment_method": True}
    path = f"/payments/{payment.payment_id}/confirm"
    answer = await client.post(path, body, user_id, idempotency_key="save")
    assert (answer.status_code, answer.json()["status"]) == (200, "captured")
    (saved,) = (await client.get("/saved-payment-methods", user_id)).json()["items"]
    return saved


async def test_saved_method_is_shown_without_its_token(
    client: Client, payments_app: PaymentsApp
) -> None:
    user_id = new_id()

    saved = await save(client, payments_app, user_id)

    assert saved.pop("saved_payment_method_id")
    assert saved.pop("created_at")
    assert saved == {
        "provider": "sandbox",
        "brand": "sandbox",
        "last4": "4242",
        "exp_month": 12,
        "exp_year": 2099,
    }


async def test_saved_method_pays_by_its_id(client: Client, payments_app: PaymentsApp) -> None:
    user_id = new_id()
    saved = await save(client, payments_app, user_id)
    payment = await payments_app.open(user_id=user_id)

    paid = await client.confirm(payment, saved["saved_payment_method_id"])

    assert (paid.status_code, paid.json()["status"]) == (200, "captured")


async def test_method_of_another_customer_is_unknown(
    client: Client, payments_app: PaymentsApp
) -> None:
    saved = await save(client, payments_app, new_id())
    path = f"/saved-payment-methods/{saved['saved_payment_method_id']}"
    payment = await payments_app.open()

    deleted = await client.http.delete(path, headers=client.headers(payment.user_id, ""))
    paid = await client.confirm(payment, saved["saved_payment_method_id"])
    listed = await client.get("/saved-payment-methods", payment.user_id)

    assert (deleted.status_code, deleted.json()["code"]) == (404, "payments.saved_method_not_found")
    assert (paid.status_code, paid.json()["code"]) == (422, "payments.unknown_method")
    assert listed.json()["items"] == []


async def test_deleted_method_is_gone(client: Client, payments_app: PaymentsApp) -> None:
    user_id = new_id()
    saved = await save(client, payments_app, user_id)
    path = f"/saved-payment-methods/{saved['saved_payment_method_id']}"
    headers = client.headers(user_id, "")

    statuses = [(await client.http.delete(path, headers=headers)).status_code for _ in range(2)]
    everything = await client.http.delete("/saved-payment-methods", headers=headers)

    assert statuses == [204, 204]
    assert everything.status_code == 204
    assert (await client.get("/saved-payment-methods", user_id)).json()["items"] == []


async def test_provider_that_saves_nothing_is_a_conflict(
    client: Client, payments_app: PaymentsApp
) -> None:
    payment = await payments_app.open()
    body = {"payment_method": "manual:bank_transfer", "save_payment_method": True}

    path = f"/payments/{payment.payment_id}/confirm"
    answer = await client.post(path, body, payment.user_id, idempotency_key="save")

    assert (answer.status_code, answer.json()["code"]) == (409, "payments.unsupported_by_provider")


async def test_saved_methods_need_a_token(client: Client, payments_app: PaymentsApp) -> None:
    assert (await client.get("/saved-payment-methods")).status_code == 401
    assert (await client.http.delete("/saved-payment-methods")).status_code == 401
