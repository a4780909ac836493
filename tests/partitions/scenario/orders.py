"""The steps of the scenario about orders: delivery, declined cards, cancellation, rejections."""

from typing import Final

from tests.partitions.scenario.steps import (
    NOWHERE,
    STREET,
    cancel,
    confirm_payment,
    fulfil,
    order_of,
    place_order,
    read_order,
)
from tests.partitions.scenario_runner import ScenarioRunner

ADDRESS: Final = {
    "recipient": "Anna Ünal",
    "line1": "Keizersgracht 1",
    "city": "Amsterdam",
    "postal_code": "1015 CJ",
    "country": "NL",
}


async def order_to_delivery(runner: ScenarioRunner, products: dict[str, str]) -> None:
    fields = {"shipping_address": ADDRESS, "billing_address": "Elsewhere 2", "note": "ring twice"}
    order = await place_order(runner, "anna", {products["mug"]: 2, products["tea"]: 3}, **fields)
    await runner.get(f"/products/{products['tea']}")
    await confirm_payment(runner, "anna", order)
    await read_order(runner, order)
    await fulfil(runner, order, [{"line_id": order["lines"][1]["line_id"], "quantity": 2}])
    await runner.get(f"/orders/{order['order_id']}/status", "anna")
    await fulfil(runner, order, [{"line_id": order["lines"][1]["line_id"], "quantity": 5}])
    await fulfil(runner, order)
    await read_order(runner, order)
    await runner.get(f"/products/{products['tea']}/stock-movements", "admin")
    await runner.get(f"/orders/{order['order_id']}", "anna")


async def failed_shipments(runner: ScenarioRunner, products: dict[str, str]) -> None:
    order = await place_order(runner, "anna", {products["tea"]: 3})
    await confirm_payment(runner, "anna", order)
    path, line_id = f"/orders/{order['order_id']}", order["lines"][0]["line_id"]
    for end, body in (("lost", None), ("returned", {"restock": True})):
        parcel = {"lines": [{"line_id": line_id, "quantity": 1}]}
        sent = await runner.post(f"{path}/fulfilments", "admin", parcel)
        await runner.wait_until_idle()
        await runner.post(f"/fulfilments/{sent['fulfilment_id']}/{end}", "admin", body)
        await runner.wait_until_idle()
    await fulfil(runner, order, [{"line_id": line_id, "quantity": 2}])
    rest = {"reason": "lost", "lines": [{"line_id": line_id, "quantity": 1}]}
    await runner.post(f"{path}/cancel", "admin", rest)
    await runner.wait_until_idle()
    await read_order(runner, order)
    await runner.get(f"/products/{products['tea']}/stock-movements", "admin")


async def returned_units(runner: ScenarioRunner, products: dict[str, str]) -> None:
    order = await place_order(runner, "anna", {products["tea"]: 3})
    await confirm_payment(runner, "anna", order)
    await fulfil(runner, order)
    line = {"line_id": order["lines"][0]["line_id"], "quantity": 2}
    body = {"lines": [line], "reason": "does not fit"}
    sent = await runner.post(f"/orders/{order['order_id']}/returns", "anna", body)
    await runner.post(f"/orders/{order['order_id']}/returns", "anna", body)
    path = f"/returns/{sent['return_id']}"
    await runner.post(f"{path}/approve", "admin")
    for disposition in ("restock", "scrap"):
        part = {**line, "quantity": 1, "condition": "opened", "disposition": disposition}
        await runner.post(f"{path}/receive", "admin", {"lines": [part]})
        await runner.wait_until_idle()
    await runner.post(f"{path}/close", "admin", {"refund_shipping": True})
    await runner.wait_until_idle()
    await runner.post(f"{path}/close", "admin", {})
    await runner.get(path, "anna")
    await read_order(runner, order)
    await runner.get(f"/products/{products['tea']}/stock-movements", "admin")


async def declined_payment(runner: ScenarioRunner, products: dict[str, str]) -> None:
    order = await place_order(runner, "anna", {products["tea"]: 1})
    for method in ("sandbox_declined", "sandbox_insufficient_funds", "sandbox_action_required"):
        await confirm_payment(runner, "anna", order, method)
        await runner.get(f"/orders/{order['order_id']}/status", "anna")
    await confirm_payment(runner, "anna", order, "gold")
    await confirm_payment(runner, "anna", order)
    await confirm_payment(runner, "anna", order)
    await read_order(runner, order)


async def cancelled_orders(runner: ScenarioRunner, products: dict[str, str]) -> None:
    unpaid, paid = [await place_order(runner, "ben", {products["tea"]: 2}) for _ in range(2)]
    await confirm_payment(runner, "ben", paid)
    for order in (unpaid, paid):
        await cancel(runner, "ben", order, "changed my mind")
        await cancel(runner, "ben", order, "once more")
        await confirm_payment(runner, "ben", order)
        await read_order(runner, order)
    sent = await place_order(runner, "ben", {products["mug"]: 1})
    await confirm_payment(runner, "ben", sent)
    parcel = {"carrier": "DHL", "tracking_number": "JD02"}
    await runner.post(f"/orders/{sent['order_id']}/fulfilments", "admin", parcel)
    await runner.wait_until_idle()
    await cancel(runner, "ben", sent, "too late")


async def rejected_orders(runner: ScenarioRunner, products: dict[str, str]) -> None:
    """Place orders that other contexts reject, so that the log has the details of their errors."""
    total = {"amount": 1, "currency": "EUR"}
    await place_order(runner, "ben", {products["tea"]: 1, products["rare"]: 2})
    await place_order(runner, "ben", {products["tea"]: 999, products["rare"]: 999})
    await place_order(runner, "ben", {products["tea"]: 1, NOWHERE: 1})
    await place_order(runner, "ben", {products["draft"]: 1})
    await place_order(runner, "ben", {products["tea"]: 1, products["dollar"]: 1})
    await place_order(runner, "ben", {products["tea"]: 1}, currency="USD")
    await place_order(runner, "ben", {products["tea"]: 1}, expected_total=total)
    await place_order(runner, "ben", {products["tea"]: 0})
    await place_order(runner, "ben", {products["tea"]: 1000})
    await place_order(runner, "ben", {})
    await runner.post("/orders", "ben", {"product_id": products["tea"], "quantity": 1})
    await runner.post("/orders", "ben", order_of({products["tea"]: 1}, voucher="free"))
    for product in ("tea", "rare", "dollar"):
        await runner.get(f"/products/{products[product]}/stock", "admin")


async def idempotency_keys(runner: ScenarioRunner, products: dict[str, str]) -> None:
    one, two = (
        {"product_id": products["mug"], "quantity": n, "shipping_address": STREET} for n in (1, 2)
    )
    for body in (one, one, two):
        await runner.post("/orders", "carl", body, key="once")
    await runner.post("/orders", "ben", one, key="once")
    await runner.post("/orders", "carl", one, key=None)
    await runner.post("/orders", "carl", one, key="k" * 256)
    await runner.wait_until_idle()
    both = {"product_id": products["rare"], "quantity": 2, "shipping_address": STREET}
    await runner.post("/orders", "carl", both, key="refused")
    path = f"/products/{products['rare']}/stock-adjustments"
    await runner.post(path, "admin", {"delta": 1, "reason": "found"})
    await runner.post("/orders", "carl", both, key="refused")
    found = await runner.get("/orders", "carl")
    paid = f"/payments/{found['items'][0]['payment']['payment_id']}/confirm"
    for method in ("sandbox_ok", "sandbox_ok", "sandbox_declined"):
        await runner.post(paid, "carl", {"payment_method": method}, key="pay once")
        await runner.wait_until_idle()


async def access_by_others(runner: ScenarioRunner, products: dict[str, str]) -> None:
    order = await place_order(runner, "anna", {products["mug"]: 1})
    order_path, payment_path = (
        f"/orders/{order['order_id']}",
        f"/payments/{order['payment']['payment_id']}",
    )
    absent = (
        f"/orders/{NOWHERE}",
        f"/orders/{NOWHERE}/fulfilments",
        f"/payments/{NOWHERE}",
        f"/fulfilments/{NOWHERE}",
    )
    for path in (
        order_path,
        f"{order_path}/status",
        f"{order_path}/timeline",
        payment_path,
        f"{payment_path}/operations",
    ):
        await runner.get(path, "ben")
        await runner.get(path)
    for path in absent:
        await runner.get(path, "ben")
    await cancel(runner, "ben", order, "not mine")
    await confirm_payment(runner, "ben", order)
    await fulfil(runner, {**order, "order_id": NOWHERE})
    for path in ("/transactions", "/ledger/accounts", "/stats", f"{payment_path}/refunds"):
        await runner.get(path, "ben")
    await runner.post(
        f"{order_path}/fulfilments", "anna", {"carrier": "me", "tracking_number": "1"}
    )
    await runner.post(f"{payment_path}/refunds", "anna", {"reason": "please"})
    runner.tokens["forger"] = runner.tokens["anna"][:-6] + "AAAAAA"
    for path in ("/users/me", "/orders", "/payments", "/reservations"):
        await runner.get(path, "forger")
    await confirm_payment(runner, "anna", order)
