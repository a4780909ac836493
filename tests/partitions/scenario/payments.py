"""Time and the provider: nobody pays, nobody knows, and money goes back."""

import json
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from markethall.payments.domain import Failed, Outcome, Succeeded
from markethall.payments.gateway import SandboxWebhooks
from tests.partitions.in_process import SECRET
from tests.partitions.scenario.steps import NOWHERE, cancel, confirmed, parcel, placed, told
from tests.partitions.scenario_runner import ScenarioRunner
from tests.partitions.server_inspector import Clock

WEBHOOKS: Final = SandboxWebhooks(SECRET.encode())


async def nobody_pays(p: ScenarioRunner, goods: dict[str, str]) -> None:
    """The order ends after its payment and gives the goods back; or they went back before."""
    orders = [await placed(p, "anna", {goods["tea"]: 2, goods["mug"]: 1}) for _ in range(2)]
    held = f"/reservations?order_id={orders[1]['order_id']}"
    reservation = (await p.get(held, "admin"))["items"][0]
    payments = [order["payment"]["payment_id"] for order in orders]
    await p.make_due(Clock.RESERVATION, reservation["reservation_id"])
    for payment_id in payments:
        await p.make_due(Clock.PAYMENT, payment_id)
    await p.wait_for(held, "admin", status="expired")
    for payment_id in payments:
        await p.wait_for(f"/payments/{payment_id}", "admin", status="expired")
    # in this order they are overdue, and in this order they end
    for order in orders:
        await p.make_due(Clock.ORDER, order["order_id"])
    for order in orders:
        await p.wait_for(f"/orders/{order['order_id']}/status", "admin", status="expired")
    for order in orders:
        await confirmed(p, "anna", order)
        await cancel(p, "anna", order, "too late")
        await told(p, order)
    await p.get(f"/products/{goods['tea']}/stock", "admin")


async def the_provider_is_slow_to_say(p: ScenarioRunner, goods: dict[str, str]) -> None:
    for method, at_last in (
        ("sandbox_timeout_after", "captured"),
        ("sandbox_timeout_before", "failed"),
    ):
        order = await placed(p, "carl", {goods["mug"]: 1})
        await confirmed(p, "carl", order, method)
        await cancel(p, "anna", order, "not mine")
        path = f"/payments/{order['payment']['payment_id']}"
        operations = await p.get(f"{path}/operations", "carl")
        await p.make_due(Clock.OPERATION, operations["items"][-1]["operation_id"])
        await p.wait_for(path, "carl", status=at_last)
        await told(p, order)
    order = await placed(p, "carl", {goods["mug"]: 1})
    await confirmed(p, "carl", order, "sandbox_webhook_first")
    operations = await p.get(f"/payments/{order['payment']['payment_id']}/operations", "carl")
    operation_id = operations["items"][0]["operation_id"]
    await _news(p, operation_id, Succeeded(f"ch_{UUID(operation_id).hex}"))
    await _news(p, NOWHERE, Failed("card_declined"))
    await _news(p, NOWHERE, Failed("card_declined"))
    await _strange_news(p)
    await told(p, order)


async def _news(p: ScenarioRunner, operation_id: str, outcome: Outcome) -> None:
    headers, body = WEBHOOKS.build_signed_event(UUID(operation_id), outcome, datetime.now(UTC))
    await p.request("POST", "/payments/webhooks/sandbox", headers=headers, content=body)
    await p.wait_until_idle()


async def _strange_news(p: ScenarioRunner) -> None:
    kind = {"content-type": "application/json"}
    for event in ({"event_id": "evt_1", "type": "payout.paid"}, {"event_id": "evt_2"}):
        body = json.dumps(event).encode()
        signed = {"sandbox-signature": WEBHOOKS.compute_signature(body, datetime.now(UTC)), **kind}
        await p.request("POST", "/payments/webhooks/sandbox", headers=signed, content=body)
        await p.request("POST", "/payments/webhooks/stripes", headers=signed, content=body)
        await p.request("POST", "/payments/webhooks/sandbox", headers=kind, content=body)


async def money_goes_back(p: ScenarioRunner, goods: dict[str, str]) -> None:
    order = await placed(p, "anna", {goods["tea"]: 2})
    path = f"/payments/{order['payment']['payment_id']}/refunds"
    await p.post(path, "admin", {"reason": "not yet paid"})
    await confirmed(p, "anna", order)
    for amount in (1000, 9999):
        money = {"amount": amount, "currency": "EUR"}
        await p.post(path, "admin", {"amount": money, "reason": "a broken cup"})
        await p.wait_until_idle()
        await p.get(f"/orders/{order['order_id']}/status", "anna")
    money = {"amount": 1, "currency": "USD"}
    await p.post(path, "admin", {"amount": money, "reason": "wrong coin"})
    await p.post(path, "admin", {"reason": "all of it"}, key="all")
    await p.wait_until_idle()
    await p.post(path, "admin", {"reason": "all of it"}, key="all")
    await p.post(path, "admin", {"reason": "again"})
    await p.wait_until_idle()
    await parcel(p, order)
    await told(p, order)
