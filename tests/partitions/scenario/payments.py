"""The steps of the scenario about expiry, delayed outcomes, webhooks and refunds."""

import json
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from markethall.payments.domain.operation import Failed, Outcome, Succeeded
from markethall.payments.gateway.sandbox_webhooks import SandboxWebhooks
from tests.partitions.in_process import SECRET
from tests.partitions.scenario.steps import (
    NOWHERE,
    cancel,
    confirm_payment,
    fulfil,
    place_order,
    read_order,
)
from tests.partitions.scenario_runner import ScenarioRunner
from tests.partitions.server_inspector import Clock

WEBHOOKS: Final = SandboxWebhooks(SECRET.encode())


async def unpaid_orders(runner: ScenarioRunner, products: dict[str, str]) -> None:
    """Let two unpaid orders expire: first one reservation, then both payments, then both orders."""
    orders = [
        await place_order(runner, "anna", {products["tea"]: 2, products["mug"]: 1})
        for _ in range(2)
    ]
    reservations = f"/reservations?order_id={orders[1]['order_id']}"
    reservation = (await runner.get(reservations, "admin"))["items"][0]
    payments = [order["payment"]["payment_id"] for order in orders]
    await runner.make_due(Clock.RESERVATION, reservation["reservation_id"])
    for payment_id in payments:
        await runner.make_due(Clock.PAYMENT, payment_id)
    await runner.wait_for(reservations, "admin", status="expired")
    for payment_id in payments:
        await runner.wait_for(f"/payments/{payment_id}", "admin", status="expired")
    # wait until orders has handled the events of the payments, which some partitions deliver later
    await runner.wait_until_idle()
    # orders expire in the order of their due times, which must be the same in every run
    for order in orders:
        await runner.make_due(Clock.ORDER, order["order_id"])
    for order in orders:
        await runner.wait_for(f"/orders/{order['order_id']}/status", "admin", status="expired")
    for order in orders:
        await confirm_payment(runner, "anna", order)
        await cancel(runner, "anna", order, "too late")
        await read_order(runner, order)
    await runner.get(f"/products/{products['tea']}/stock", "admin")


async def delayed_provider_outcomes(runner: ScenarioRunner, products: dict[str, str]) -> None:
    for method, final_status in (
        ("sandbox_timeout_after", "captured"),
        ("sandbox_timeout_before", "failed"),
    ):
        order = await place_order(runner, "carl", {products["mug"]: 1})
        await confirm_payment(runner, "carl", order, method)
        await cancel(runner, "anna", order, "not mine")
        path = f"/payments/{order['payment']['payment_id']}"
        operations = await runner.get(f"{path}/operations", "carl")
        await runner.make_due(Clock.OPERATION, operations["items"][-1]["operation_id"])
        await runner.wait_for(path, "carl", status=final_status)
        await read_order(runner, order)
    order = await place_order(runner, "carl", {products["mug"]: 1})
    await confirm_payment(runner, "carl", order, "sandbox_webhook_first")
    operations = await runner.get(f"/payments/{order['payment']['payment_id']}/operations", "carl")
    operation_id = operations["items"][0]["operation_id"]
    await _send_webhook(runner, operation_id, Succeeded(f"ch_{UUID(operation_id).hex}"))
    await _send_webhook(runner, NOWHERE, Failed("card_declined"))
    await _send_webhook(runner, NOWHERE, Failed("card_declined"))
    await _send_invalid_webhooks(runner)
    await read_order(runner, order)


async def _send_webhook(runner: ScenarioRunner, operation_id: str, outcome: Outcome) -> None:
    headers, body = WEBHOOKS.build_signed_event(UUID(operation_id), outcome, datetime.now(UTC))
    await runner.request("POST", "/payments/webhooks/sandbox", headers=headers, content=body)
    await runner.wait_until_idle()


async def _send_invalid_webhooks(runner: ScenarioRunner) -> None:
    content_type = {"content-type": "application/json"}
    for event in ({"event_id": "evt_1", "type": "payout.paid"}, {"event_id": "evt_2"}):
        body = json.dumps(event).encode()
        signed = {
            "sandbox-signature": WEBHOOKS.compute_signature(body, datetime.now(UTC)),
            **content_type,
        }
        await runner.request("POST", "/payments/webhooks/sandbox", headers=signed, content=body)
        await runner.request("POST", "/payments/webhooks/stripes", headers=signed, content=body)
        await runner.request(
            "POST", "/payments/webhooks/sandbox", headers=content_type, content=body
        )


async def refunds(runner: ScenarioRunner, products: dict[str, str]) -> None:
    order = await place_order(runner, "anna", {products["tea"]: 2})
    path = f"/payments/{order['payment']['payment_id']}/refunds"
    await runner.post(path, "admin", {"reason": "not yet paid"})
    await change_authorization(runner, order)
    await confirm_payment(runner, "anna", order)
    await change_authorization(runner, order)
    for amount in (1000, 9999):
        money = {"amount": amount, "currency": "EUR"}
        await runner.post(path, "admin", {"amount": money, "reason": "a broken cup"})
        await runner.wait_until_idle()
        await runner.get(f"/orders/{order['order_id']}/status", "anna")
    money = {"amount": 1, "currency": "USD"}
    await runner.post(path, "admin", {"amount": money, "reason": "wrong coin"})
    await runner.post(path, "admin", {"reason": "all of it"}, key="all")
    await runner.wait_until_idle()
    await runner.post(path, "admin", {"reason": "all of it"}, key="all")
    await runner.post(path, "admin", {"reason": "again"})
    await runner.wait_until_idle()
    await fulfil(runner, order)
    await read_order(runner, order)


async def change_authorization(runner: ScenarioRunner, order: dict[str, Any]) -> None:
    """Try to capture and void the payment. Both are rejected, because it is not authorized."""
    path = f"/payments/{order['payment']['payment_id']}"
    for who in ("anna", "admin"):
        await runner.post(f"{path}/capture", who, {"final": True})
        await runner.post(f"{path}/void", who, {})
