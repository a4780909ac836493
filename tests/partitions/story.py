"""One story, the same every time: what a hall is for, and the crossed refusals of its contexts.

Requests come one after the other, and after each that sets events in motion all comes to rest; so
what happens next depends on nothing but the story.
"""

import json
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from markethall.payments.domain import Failed, Outcome, Succeeded
from markethall.payments.gateway import SandboxWebhooks
from tests.partitions.in_process import SECRET
from tests.partitions.inside import Clock
from tests.partitions.player import Player

NOWHERE: Final = "01890000-0000-7000-8000-000000000000"
STREET: Final = "Market 1"
ADDRESS: Final = {
    "recipient": "Anna Ünal",
    "line1": "Keizersgracht 1",
    "city": "Amsterdam",
    "postal_code": "1015 CJ",
    "country": "NL",
}
WEBHOOKS: Final = SandboxWebhooks(SECRET.encode())


async def play(player: Player) -> None:
    await player.sign_in_admin()
    await people(player)
    goods = await shelves(player)
    await from_order_to_delivery(player, goods)
    await declined(player, goods)
    await cancelled(player, goods)
    await refused(player, goods)
    await keys(player, goods)
    await strangers(player, goods)
    await staff(player, goods)
    await nobody_pays(player, goods)
    await the_provider_is_slow_to_say(player, goods)
    await money_goes_back(player, goods)
    await banned(player, goods)
    await the_end(player, goods)


# People


async def people(p: Player) -> None:
    for name in ("anna", "ben", "carl", "dora"):
        await p.sign_up(name)
    await p.post("/users", body=_registration("ANNA", "other@example.com"))
    await p.post("/users", body=_registration("anna2", "Anna@Example.com"))
    await p.post("/users", body=_registration("eve", "eve@example.com", password="12345678"))
    await p.post("/users", body={"username": "x", "email": "no address", "extra": 1})
    await p.sign_in("nobody", "wrong password", "anna")
    await p.sign_in("nobody", "wrong password", "who")
    await _sessions(p)
    me = await p.get("/users/me", "anna")
    await p.get("/users/me", "anna", headers={"if-none-match": me["etag"]})
    await p.patch("/users/me", "anna", {"full_name": "Anna Ünal", "tags": ["new", "tea"]})
    await p.patch("/users/me", "anna", {"full_name": "late"}, seen=me["etag"])
    change = {"current_password": "ben likes tea", "new_password": "ben likes coffee"}
    await p.post("/users/me/password", "ben", change)
    await p.post("/users/me/password", "ben", change)
    await p.sign_in("ben", "ben likes coffee")
    await p.get("/users/me")
    await p.get("/users", "anna")
    await p.get("/users?limit=2", "admin")
    await p.get("/.well-known/jwks.json")


def _registration(name: str, email: str, password: str = "a long enough one") -> dict[str, str]:  # noqa: S107 - opens nothing
    return {"username": name, "email": email, "password": password}


async def _sessions(p: Player) -> None:
    first = await p.sign_in("carl", "carl likes tea")
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = await p.ask("POST", "/token", data=form)
    await p.ask("POST", "/token/revoke", data={"token": second["refresh_token"]})
    form["refresh_token"] = second["refresh_token"]
    await p.ask("POST", "/token", data=form)
    await p.ask("POST", "/token", data={"grant_type": "magic"})


# What there is to buy


async def shelves(p: Player) -> dict[str, str]:
    goods = {
        "tea": await _product(p, "TEA", 1250, 20, category="tea", tags=["green"]),
        "mug": await _product(p, "MUG", 890, 20, options={"colour": "blue"}),
        "rare": await _product(p, "RARE", 99900, 1, attributes={"age": 80, "signed": True}),
        "dollar": await _product(p, "DOLLAR", 100, 5, currency="USD"),
        "draft": await _product(p, "DRAFT", 100, 5, status="draft"),
    }
    await _catalogue(p, goods)
    await _stock(p, goods)
    return goods


async def _product(
    p: Player, sku: str, amount: int, stock: int, currency: str = "EUR", **fields: Any
) -> str:
    price = {"amount": amount, "currency": currency}
    body = {"sku": sku, "name": f"The {sku.lower()}", "price": price, **fields}
    product = await p.post("/products", "admin", body)
    path = f"/products/{product['product_id']}/stock-adjustments"
    await p.post(path, "admin", {"delta": stock, "reason": "received", "note": "first"})
    return str(product["product_id"])


async def _catalogue(p: Player, goods: dict[str, str]) -> None:
    tea = f"/products/{goods['tea']}"
    page = await p.get("/products?limit=2&sort=price")
    await p.get(f"/products?limit=2&sort=price&cursor={page['next_cursor']}")
    for query in ("?q=mug", "?category=tea", "?colour=blue", "?status=draft", "?cursor=forged"):
        await p.get(f"/products{query}")
    found = await p.get(tea)
    await p.get(tea, headers={"if-none-match": found["etag"]})
    await p.get("/products/by-sku/tea")
    await p.get(f"/products/{goods['draft']}")
    await p.get(f"/products/{goods['draft']}", "admin")
    await p.get(f"/products/{NOWHERE}")
    await p.get("/products/no-id")
    await p.get("/categories")
    sku = {"sku": "tea", "name": "Again", "price": {"amount": 1, "currency": "EUR"}}
    for who in ("admin", "anna", ""):
        await p.post("/products", who, sku)
    await p.patch(tea, "admin", {"description": "From Uji."})
    await p.patch(tea, "admin", {"description": "From Uji."}, seen='"v1"')
    await p.patch(tea, "admin", {"description": "Too late."}, seen='"v1"')
    await p.get(tea)


async def _stock(p: Player, goods: dict[str, str]) -> None:
    path = f"/products/{goods['mug']}/stock-adjustments"
    await p.post(path, "admin", {"delta": -21, "reason": "damaged"})
    await p.post(path, "admin", {"counted": 19, "reason": "counted"})
    await p.post(path, "admin", {"delta": 1, "reason": "found"}, key=None)
    await p.post(path, "anna", {"delta": 1, "reason": "found"})
    await p.post(path, "admin", {"delta": "1", "reason": "found"})
    await p.get(f"/products/{goods['mug']}/stock", "admin")
    await p.get(f"/products/{goods['mug']}/stock-movements", "admin")


# Orders


def _order(lines: dict[str, int], **fields: Any) -> dict[str, Any]:
    wanted = [{"product_id": product, "quantity": many} for product, many in lines.items()]
    return {"lines": wanted, "shipping_address": STREET, **fields}


async def _placed(p: Player, who: str, lines: dict[str, int], **fields: Any) -> dict[str, Any]:
    order: dict[str, Any] = await p.post("/orders", who, _order(lines, **fields))
    await p.rest()
    return order


async def _confirmed(p: Player, who: str, order: dict[str, Any], method: str = "sandbox_ok") -> Any:
    path = f"/payments/{order['payment']['payment_id']}/confirm"
    payment = await p.post(path, who, {"payment_method": method})
    await p.rest()
    return payment


async def _cancelled(p: Player, who: str, order: dict[str, Any], reason: str) -> None:
    await p.post(f"/orders/{order['order_id']}/cancel", who, {"reason": reason})
    await p.rest()


async def _told(p: Player, order: dict[str, Any]) -> None:
    """Everything that can be read about an order."""
    place, payment = f"/orders/{order['order_id']}", f"/payments/{order['payment']['payment_id']}"
    for path in (place, f"{place}/status", f"{place}/timeline", payment, f"{payment}/operations"):
        await p.get(path, "admin")
    for path in (f"/reservations?order_id={order['order_id']}", f"{payment}/refunds"):
        await p.get(path, "admin")


async def from_order_to_delivery(p: Player, goods: dict[str, str]) -> None:
    fields = {"shipping_address": ADDRESS, "billing_address": "Elsewhere 2", "note": "ring twice"}
    order = await _placed(p, "anna", {goods["mug"]: 2, goods["tea"]: 3}, **fields)
    await p.get(f"/products/{goods['tea']}")
    await _confirmed(p, "anna", order)
    await _told(p, order)
    await _parcel(p, order, [{"line_id": order["lines"][1]["line_id"], "quantity": 2}])
    await p.get(f"/orders/{order['order_id']}/status", "anna")
    await _parcel(p, order, [{"line_id": order["lines"][1]["line_id"], "quantity": 5}])
    await _parcel(p, order)
    await _told(p, order)
    await p.get(f"/products/{goods['tea']}/stock-movements", "admin")
    await p.get(f"/orders/{order['order_id']}", "anna")


async def _parcel(
    p: Player, order: dict[str, Any], lines: list[dict[str, Any]] | None = None
) -> None:
    """Sent, and delivered if it was."""
    body = {"carrier": "DHL", "tracking_number": "JD01", **({"lines": lines} if lines else {})}
    sent = await p.post(f"/orders/{order['order_id']}/fulfilments", "admin", body)
    await p.rest()
    if "fulfilment_id" in sent:
        path = f"/fulfilments/{sent['fulfilment_id']}"
        await p.post(f"{path}/deliver", "admin")
        await p.rest()
        await p.post(f"{path}/deliver", "admin")
        await p.get(path, "anna")


async def declined(p: Player, goods: dict[str, str]) -> None:
    order = await _placed(p, "anna", {goods["tea"]: 1})
    for method in ("sandbox_declined", "sandbox_insufficient_funds", "sandbox_action_required"):
        await _confirmed(p, "anna", order, method)
        await p.get(f"/orders/{order['order_id']}/status", "anna")
    await _confirmed(p, "anna", order, "gold")
    await _confirmed(p, "anna", order)
    await _confirmed(p, "anna", order)
    await _told(p, order)


async def cancelled(p: Player, goods: dict[str, str]) -> None:
    unpaid, paid = [await _placed(p, "ben", {goods["tea"]: 2}) for _ in range(2)]
    await _confirmed(p, "ben", paid)
    for order in (unpaid, paid):
        await _cancelled(p, "ben", order, "changed my mind")
        await _cancelled(p, "ben", order, "once more")
        await _confirmed(p, "ben", order)
        await _told(p, order)
    sent = await _placed(p, "ben", {goods["mug"]: 1})
    await _confirmed(p, "ben", sent)
    parcel = {"carrier": "DHL", "tracking_number": "JD02"}
    await p.post(f"/orders/{sent['order_id']}/fulfilments", "admin", parcel)
    await p.rest()
    await _cancelled(p, "ben", sent, "too late")


async def refused(p: Player, goods: dict[str, str]) -> None:
    """What a neighbour refuses, its details included, and nothing of it stays behind."""
    total = {"amount": 1, "currency": "EUR"}
    await _placed(p, "ben", {goods["tea"]: 1, goods["rare"]: 2})
    await _placed(p, "ben", {goods["tea"]: 999, goods["rare"]: 999})
    await _placed(p, "ben", {goods["tea"]: 1, NOWHERE: 1})
    await _placed(p, "ben", {goods["draft"]: 1})
    await _placed(p, "ben", {goods["tea"]: 1, goods["dollar"]: 1})
    await _placed(p, "ben", {goods["tea"]: 1}, currency="USD")
    await _placed(p, "ben", {goods["tea"]: 1}, expected_total=total)
    await _placed(p, "ben", {goods["tea"]: 0})
    await _placed(p, "ben", {goods["tea"]: 1000})
    await _placed(p, "ben", {})
    await p.post("/orders", "ben", {"product_id": goods["tea"], "quantity": 1})
    await p.post("/orders", "ben", _order({goods["tea"]: 1}, voucher="free"))
    for product in ("tea", "rare", "dollar"):
        await p.get(f"/products/{goods[product]}/stock", "admin")


async def keys(p: Player, goods: dict[str, str]) -> None:
    one, two = (
        {"product_id": goods["mug"], "quantity": n, "shipping_address": STREET} for n in (1, 2)
    )
    for body in (one, one, two):
        await p.post("/orders", "carl", body, key="once")
    await p.post("/orders", "ben", one, key="once")
    await p.post("/orders", "carl", one, key=None)
    await p.post("/orders", "carl", one, key="k" * 256)
    await p.rest()
    both = {"product_id": goods["rare"], "quantity": 2, "shipping_address": STREET}
    await p.post("/orders", "carl", both, key="refused")
    path = f"/products/{goods['rare']}/stock-adjustments"
    await p.post(path, "admin", {"delta": 1, "reason": "found"})
    await p.post("/orders", "carl", both, key="refused")
    found = await p.get("/orders", "carl")
    paid = f"/payments/{found['items'][0]['payment']['payment_id']}/confirm"
    for method in ("sandbox_ok", "sandbox_ok", "sandbox_declined"):
        await p.post(paid, "carl", {"payment_method": method}, key="pay once")
        await p.rest()


async def strangers(p: Player, goods: dict[str, str]) -> None:
    order = await _placed(p, "anna", {goods["mug"]: 1})
    place, payment = f"/orders/{order['order_id']}", f"/payments/{order['payment']['payment_id']}"
    absent = (f"/orders/{NOWHERE}", f"/payments/{NOWHERE}", f"/fulfilments/{NOWHERE}")
    for path in (place, f"{place}/status", f"{place}/timeline", payment, f"{payment}/operations"):
        await p.get(path, "ben")
        await p.get(path)
    for path in absent:
        await p.get(path, "ben")
    await _cancelled(p, "ben", order, "not mine")
    await _confirmed(p, "ben", order)
    await _parcel(p, {**order, "order_id": NOWHERE})
    for path in ("/transactions", "/ledger/accounts", "/stats", f"{payment}/refunds"):
        await p.get(path, "ben")
    await p.post(f"{place}/fulfilments", "anna", {"carrier": "me", "tracking_number": "1"})
    await p.post(f"{payment}/refunds", "anna", {"reason": "please"})
    p.tokens["forger"] = p.tokens["anna"][:-6] + "AAAAAA"
    for path in ("/users/me", "/orders", "/payments", "/reservations"):
        await p.get(path, "forger")
    await _confirmed(p, "anna", order)


async def staff(p: Player, goods: dict[str, str]) -> None:
    """Somebody gets a job, and sees no more than it needs."""
    await _appoint(p, "dora", {"roles": ["staff:orders"]})
    await p.sign_in("dora", "dora likes tea")
    for path in ("/orders?limit=2&status=processing", f"/products/{goods['tea']}/stock"):
        await p.get(path, "dora")
    await p.get("/transactions", "dora")
    await p.stats("dora")
    page = await p.get("/orders?limit=3&sort=created_at", "dora")
    await p.get(f"/orders?limit=3&sort=created_at&cursor={page['next_cursor']}", "dora")
    await p.get(f"/orders?limit=3&cursor={page['next_cursor']}", "dora")
    await p.get("/orders?limit=0", "dora")
    await _appoint(p, "dora", {"roles": ["king"]})
    await _appoint(p, "admin", {"roles": ["customer"]})


async def _appoint(p: Player, name: str, change: dict[str, Any]) -> None:
    me = await p.get("/users/me", name)
    path = f"/users/{me.get('user_id', NOWHERE)}"
    found = await p.get(path, "admin")
    await p.patch(path, "admin", change)
    await p.patch(path, "admin", change, seen=found.get("etag", '"v1"'))


# Time and the provider


async def nobody_pays(p: Player, goods: dict[str, str]) -> None:
    """The order ends after its payment and gives the goods back; or they went back before."""
    orders = [await _placed(p, "anna", {goods["tea"]: 2, goods["mug"]: 1}) for _ in range(2)]
    held = f"/reservations?order_id={orders[1]['order_id']}"
    reservation = (await p.get(held, "admin"))["items"][0]
    payments = [order["payment"]["payment_id"] for order in orders]
    await p.late(Clock.HOLD, reservation["reservation_id"])
    for payment_id in payments:
        await p.late(Clock.PAYMENT, payment_id)
    await p.until(held, "admin", status="expired")
    for payment_id in payments:
        await p.until(f"/payments/{payment_id}", "admin", status="expired")
    # in this order they are overdue, and in this order they end
    for order in orders:
        await p.late(Clock.ORDER, order["order_id"])
    for order in orders:
        await p.until(f"/orders/{order['order_id']}/status", "admin", status="expired")
    for order in orders:
        await _confirmed(p, "anna", order)
        await _cancelled(p, "anna", order, "too late")
        await _told(p, order)
    await p.get(f"/products/{goods['tea']}/stock", "admin")


async def the_provider_is_slow_to_say(p: Player, goods: dict[str, str]) -> None:
    for method, at_last in (
        ("sandbox_timeout_after", "captured"),
        ("sandbox_timeout_before", "failed"),
    ):
        order = await _placed(p, "carl", {goods["mug"]: 1})
        await _confirmed(p, "carl", order, method)
        await _cancelled(p, "anna", order, "not mine")
        path = f"/payments/{order['payment']['payment_id']}"
        operations = await p.get(f"{path}/operations", "carl")
        await p.late(Clock.OPERATION, operations["items"][-1]["operation_id"])
        await p.until(path, "carl", status=at_last)
        await _told(p, order)
    order = await _placed(p, "carl", {goods["mug"]: 1})
    await _confirmed(p, "carl", order, "sandbox_webhook_first")
    operations = await p.get(f"/payments/{order['payment']['payment_id']}/operations", "carl")
    operation_id = operations["items"][0]["operation_id"]
    await _news(p, operation_id, Succeeded(f"ch_{UUID(operation_id).hex}"))
    await _news(p, NOWHERE, Failed("card_declined"))
    await _news(p, NOWHERE, Failed("card_declined"))
    await _strange_news(p)
    await _told(p, order)


async def _news(p: Player, operation_id: str, outcome: Outcome) -> None:
    headers, body = WEBHOOKS.signed(UUID(operation_id), outcome, datetime.now(UTC))
    await p.ask("POST", "/payments/webhooks/sandbox", headers=headers, content=body)
    await p.rest()


async def _strange_news(p: Player) -> None:
    kind = {"content-type": "application/json"}
    for event in ({"event_id": "evt_1", "type": "payout.paid"}, {"event_id": "evt_2"}):
        body = json.dumps(event).encode()
        signed = {"sandbox-signature": WEBHOOKS.signature(body, datetime.now(UTC)), **kind}
        await p.ask("POST", "/payments/webhooks/sandbox", headers=signed, content=body)
        await p.ask("POST", "/payments/webhooks/stripes", headers=signed, content=body)
        await p.ask("POST", "/payments/webhooks/sandbox", headers=kind, content=body)


async def money_goes_back(p: Player, goods: dict[str, str]) -> None:
    order = await _placed(p, "anna", {goods["tea"]: 2})
    path = f"/payments/{order['payment']['payment_id']}/refunds"
    await p.post(path, "admin", {"reason": "not yet paid"})
    await _confirmed(p, "anna", order)
    for amount in (1000, 9999):
        money = {"amount": amount, "currency": "EUR"}
        await p.post(path, "admin", {"amount": money, "reason": "a broken cup"})
        await p.rest()
        await p.get(f"/orders/{order['order_id']}/status", "anna")
    money = {"amount": 1, "currency": "USD"}
    await p.post(path, "admin", {"amount": money, "reason": "wrong coin"})
    await p.post(path, "admin", {"reason": "all of it"}, key="all")
    await p.rest()
    await p.post(path, "admin", {"reason": "all of it"}, key="all")
    await p.post(path, "admin", {"reason": "again"})
    await p.rest()
    await _parcel(p, order)
    await _told(p, order)


async def banned(p: Player, goods: dict[str, str]) -> None:
    """Another context's word about a person, at once, with a token that is good for a while."""
    me = await p.get("/users/me", "ben")
    for active in (False, True):
        found = await p.get(f"/users/{me['user_id']}", "admin")
        path = f"/users/{me['user_id']}"
        await p.patch(path, "admin", {"is_active": active}, seen=found["etag"])
        await _placed(p, "ben", {goods["tea"]: 1})
        await p.get("/users/me", "ben")
        await p.sign_in("ben", "ben likes coffee")


async def the_end(p: Player, goods: dict[str, str]) -> None:
    await p.rest()
    for who in ("anna", "ben", "carl", "admin"):
        await p.get("/orders?limit=100", who)
        await p.get("/payments?limit=100&sort=created_at", who)
    for path in ("/transactions?limit=100", "/ledger/accounts", "/ledger/verify"):
        await p.get(path, "admin")
    for product in goods.values():
        await p.get(f"/products/{product}/stock", "admin")
        await p.get(f"/products/{product}", "admin")
    for method, path in (("DELETE", "/orders"), ("PUT", "/payments"), ("PATCH", "/products")):
        await p.ask(method, path, "admin")
    await p.ask("GET", "/nowhere")
    await p.ask("POST", "/orders", "anna", headers={"idempotency-key": "x"}, content=b"<order/>")
    await p.stats("admin")
