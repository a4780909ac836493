"""Orders: delivered, declined, cancelled, refused, repeated, and those of others."""

from typing import Final

from tests.partitions.scenario.steps import (
    NOWHERE,
    STREET,
    cancel,
    confirmed,
    order_of,
    parcel,
    placed,
    told,
)
from tests.partitions.scenario_runner import ScenarioRunner

ADDRESS: Final = {
    "recipient": "Anna Ünal",
    "line1": "Keizersgracht 1",
    "city": "Amsterdam",
    "postal_code": "1015 CJ",
    "country": "NL",
}


async def from_order_to_delivery(p: ScenarioRunner, goods: dict[str, str]) -> None:
    fields = {"shipping_address": ADDRESS, "billing_address": "Elsewhere 2", "note": "ring twice"}
    order = await placed(p, "anna", {goods["mug"]: 2, goods["tea"]: 3}, **fields)
    await p.get(f"/products/{goods['tea']}")
    await confirmed(p, "anna", order)
    await told(p, order)
    await parcel(p, order, [{"line_id": order["lines"][1]["line_id"], "quantity": 2}])
    await p.get(f"/orders/{order['order_id']}/status", "anna")
    await parcel(p, order, [{"line_id": order["lines"][1]["line_id"], "quantity": 5}])
    await parcel(p, order)
    await told(p, order)
    await p.get(f"/products/{goods['tea']}/stock-movements", "admin")
    await p.get(f"/orders/{order['order_id']}", "anna")


async def declined(p: ScenarioRunner, goods: dict[str, str]) -> None:
    order = await placed(p, "anna", {goods["tea"]: 1})
    for method in ("sandbox_declined", "sandbox_insufficient_funds", "sandbox_action_required"):
        await confirmed(p, "anna", order, method)
        await p.get(f"/orders/{order['order_id']}/status", "anna")
    await confirmed(p, "anna", order, "gold")
    await confirmed(p, "anna", order)
    await confirmed(p, "anna", order)
    await told(p, order)


async def cancelled(p: ScenarioRunner, goods: dict[str, str]) -> None:
    unpaid, paid = [await placed(p, "ben", {goods["tea"]: 2}) for _ in range(2)]
    await confirmed(p, "ben", paid)
    for order in (unpaid, paid):
        await cancel(p, "ben", order, "changed my mind")
        await cancel(p, "ben", order, "once more")
        await confirmed(p, "ben", order)
        await told(p, order)
    sent = await placed(p, "ben", {goods["mug"]: 1})
    await confirmed(p, "ben", sent)
    parcel = {"carrier": "DHL", "tracking_number": "JD02"}
    await p.post(f"/orders/{sent['order_id']}/fulfilments", "admin", parcel)
    await p.wait_until_idle()
    await cancel(p, "ben", sent, "too late")


async def refused(p: ScenarioRunner, goods: dict[str, str]) -> None:
    """What a neighbour refuses, its details included, and nothing of it stays behind."""
    total = {"amount": 1, "currency": "EUR"}
    await placed(p, "ben", {goods["tea"]: 1, goods["rare"]: 2})
    await placed(p, "ben", {goods["tea"]: 999, goods["rare"]: 999})
    await placed(p, "ben", {goods["tea"]: 1, NOWHERE: 1})
    await placed(p, "ben", {goods["draft"]: 1})
    await placed(p, "ben", {goods["tea"]: 1, goods["dollar"]: 1})
    await placed(p, "ben", {goods["tea"]: 1}, currency="USD")
    await placed(p, "ben", {goods["tea"]: 1}, expected_total=total)
    await placed(p, "ben", {goods["tea"]: 0})
    await placed(p, "ben", {goods["tea"]: 1000})
    await placed(p, "ben", {})
    await p.post("/orders", "ben", {"product_id": goods["tea"], "quantity": 1})
    await p.post("/orders", "ben", order_of({goods["tea"]: 1}, voucher="free"))
    for product in ("tea", "rare", "dollar"):
        await p.get(f"/products/{goods[product]}/stock", "admin")


async def keys(p: ScenarioRunner, goods: dict[str, str]) -> None:
    one, two = (
        {"product_id": goods["mug"], "quantity": n, "shipping_address": STREET} for n in (1, 2)
    )
    for body in (one, one, two):
        await p.post("/orders", "carl", body, key="once")
    await p.post("/orders", "ben", one, key="once")
    await p.post("/orders", "carl", one, key=None)
    await p.post("/orders", "carl", one, key="k" * 256)
    await p.wait_until_idle()
    both = {"product_id": goods["rare"], "quantity": 2, "shipping_address": STREET}
    await p.post("/orders", "carl", both, key="refused")
    path = f"/products/{goods['rare']}/stock-adjustments"
    await p.post(path, "admin", {"delta": 1, "reason": "found"})
    await p.post("/orders", "carl", both, key="refused")
    found = await p.get("/orders", "carl")
    paid = f"/payments/{found['items'][0]['payment']['payment_id']}/confirm"
    for method in ("sandbox_ok", "sandbox_ok", "sandbox_declined"):
        await p.post(paid, "carl", {"payment_method": method}, key="pay once")
        await p.wait_until_idle()


async def strangers(p: ScenarioRunner, goods: dict[str, str]) -> None:
    order = await placed(p, "anna", {goods["mug"]: 1})
    place, payment = f"/orders/{order['order_id']}", f"/payments/{order['payment']['payment_id']}"
    absent = (f"/orders/{NOWHERE}", f"/payments/{NOWHERE}", f"/fulfilments/{NOWHERE}")
    for path in (place, f"{place}/status", f"{place}/timeline", payment, f"{payment}/operations"):
        await p.get(path, "ben")
        await p.get(path)
    for path in absent:
        await p.get(path, "ben")
    await cancel(p, "ben", order, "not mine")
    await confirmed(p, "ben", order)
    await parcel(p, {**order, "order_id": NOWHERE})
    for path in ("/transactions", "/ledger/accounts", "/stats", f"{payment}/refunds"):
        await p.get(path, "ben")
    await p.post(f"{place}/fulfilments", "anna", {"carrier": "me", "tracking_number": "1"})
    await p.post(f"{payment}/refunds", "anna", {"reason": "please"})
    p.tokens["forger"] = p.tokens["anna"][:-6] + "AAAAAA"
    for path in ("/users/me", "/orders", "/payments", "/reservations"):
        await p.get(path, "forger")
    await confirmed(p, "anna", order)
