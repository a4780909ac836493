"""The attack on a cart: requests check it out, change it and change a price at the same moment.

The customer must pay the price of the ordered lines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.acidrain.last_byte import ANY_VERSION, RawRequest, RawResponse, expect_statuses
from tests.acidrain.order_attacks import created
from tests.acidrain.target import Target
from tests.e2e.shop import Person, Shop, expect_status

# the four changes: raise the quantity of a line, remove a line, add a line, change a price
CHANGES: Final = 4
RAISED_QUANTITY, ADDED_QUANTITY = 5, 3


@dataclass(frozen=True)
class AttackedCart:
    guest: Person
    path: str
    total: dict[str, Any]
    # three products of the cart (the changes raise, remove and reprice one each), and one to add
    product_ids: Sequence[str]


async def attack_cart(target: Target, racers: int) -> list[str]:
    """Try to get unpaid goods, or two orders of one cart. Return the violations."""
    cart = await _create_cart(target)
    checkouts = [_checkout(cart, has_quote=number % 2 == 1) for number in range(racers - CHANGES)]

    answers = await target.send_together([*checkouts, *_changes(target, cart)])

    answers_of_checkouts, answers_of_changes = answers[: len(checkouts)], answers[len(checkouts) :]
    expect_statuses(answers_of_changes, 200, 204, 409)
    violations = _other_totals_than_quoted(cart, checkouts, answers_of_checkouts)
    orders = {order["order_id"]: order for order in created(answers_of_checkouts)}
    if not orders:  # each checkout was rejected, because the cart had changed
        (answer,) = await target.send_together([_checkout(cart, has_quote=False)])
        orders = {order["order_id"]: order for order in created([answer])}
    return [*violations, *await _find_violations(target.shop, cart, orders)]


async def _create_cart(target: Target) -> AttackedCart:
    shop = target.shop
    products = [await shop.product(stock=1000, amount=amount) for amount in (1000, 300, 70, 4)]
    product_ids = [product["product_id"] for product in products]
    (token,) = await target.list_guest_tokens(1)
    guest = Person("guest", "", "", "", token)
    body = {
        "lines": [{"product_id": product_id, "quantity": 2} for product_id in product_ids[:3]],
        "shipping_address": "Market 1",
        "email": "ada@example.com",
    }
    cart = expect_status(await shop.post("/carts", guest, json=body), 201)
    return AttackedCart(guest, f"/carts/{cart['cart_id']}", cart["totals"]["total"], product_ids)


def _checkout(cart: AttackedCart, *, has_quote: bool) -> RawRequest:
    body = {"expected_total": cart.total} if has_quote else {}
    return RawRequest("POST", f"{cart.path}/checkout", body, cart.guest.token)


def _changes(target: Target, cart: AttackedCart) -> list[RawRequest]:
    raised, removed, repriced, added = cart.product_ids
    token, lines = cart.guest.token, f"{cart.path}/lines"
    price = {"price": {"amount": 99, "currency": "EUR"}}
    return [
        RawRequest("PUT", f"{lines}/{raised}", {"quantity": RAISED_QUANTITY}, token),
        RawRequest("DELETE", f"{lines}/{removed}", None, token),
        RawRequest("PUT", f"{lines}/{added}", {"quantity": ADDED_QUANTITY}, token),
        RawRequest("PATCH", f"/products/{repriced}", price, target.admin_token, ANY_VERSION),
    ]


def _other_totals_than_quoted(
    cart: AttackedCart, checkouts: Sequence[RawRequest], answers: Sequence[RawResponse]
) -> list[str]:
    return [
        f"an order of {answer.body['total']}, although {cart.total} was quoted"
        for request, answer in zip(checkouts, answers, strict=True)
        if request.body and answer.status == 201 and answer.body["total"] != cart.total
    ]


async def _find_violations(
    shop: Shop, cart: AttackedCart, orders: Mapping[str, dict[str, Any]]
) -> list[str]:
    stored = expect_status(await shop.get("/orders", cart.guest), 200)["items"]
    violations = []
    if len(stored) != 1:
        violations.append(f"{len(stored)} orders of one cart")
    if {order["order_id"] for order in stored} != set(orders):
        violations.append("an order without an answer")
    closed = expect_status(await shop.get(cart.path, cart.guest), 200)
    for order in stored:
        if closed["order_id"] != order["order_id"]:
            violations.append("an order that the cart does not name")
        if _units(closed) != _units(order):
            violations.append("other goods than those of the cart")
        violations += _wrong_sums(order)
        violations += await _other_charge(shop, cart.guest, order)
    return violations


def _units(body: Mapping[str, Any]) -> dict[str, int]:
    return {line["product_id"]: line["quantity"] for line in body["lines"]}


def _wrong_sums(order: Mapping[str, Any]) -> list[str]:
    """Compare the total with the sum of the lines. The shop has no taxes, shipping or discounts."""
    lines = [line["unit_price"]["amount"] * line["quantity"] for line in order["lines"]]
    listed = [line["total"]["amount"] for line in order["lines"]]
    total = order["total"]["amount"]
    if lines != listed or sum(lines) != total:
        return [f"a total of {total} for lines of {lines}, listed as {listed}"]
    return []


async def _other_charge(shop: Shop, guest: Person, order: Mapping[str, Any]) -> list[str]:
    """Pay the order, and compare what was captured with its total."""
    payment_id, total = order["payment"]["payment_id"], order["total"]["amount"]
    expect_status(await shop.confirm(guest, payment_id), 200)
    payment = await shop.wait_for_payment(guest, payment_id, status="captured")
    captured = payment["captured"]["amount"]
    return [] if captured == total else [f"a charge of {captured} for an order of {total}"]
