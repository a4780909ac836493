"""The attacks on vouchers and on inventory: many customers order at the same moment."""

import secrets
from collections.abc import Sequence
from typing import Any, Final

from tests.acidrain.last_byte import RawRequest, RawResponse, expect_statuses
from tests.acidrain.target import Target
from tests.e2e.shop import expect_status

LIMIT: Final = 3
PRICE: Final = 2000


async def attack_voucher(target: Target, racers: int) -> list[str]:
    """Try to use a voucher more often than its limit allows. Return the violations."""
    shop, code = target.shop, f"CODE-{secrets.token_hex(6)}"
    product_id = (await shop.product(stock=2 * racers, amount=PRICE))["product_id"]
    voucher = {"name": "Spring", "kind": "percent", "percent": "10", "code": code}
    body = voucher | {"usage_limit": LIMIT}
    made = expect_status(await shop.post("/promotions", shop.admin, json=body), 201)
    requests = _orders_of(await target.list_guest_tokens(racers), product_id, voucher_code=code)

    orders = created(await target.send_together(requests))

    discounts = [order["discount"]["amount"] for order in orders]
    path = f"/promotions/{made['promotion_id']}"
    used = expect_status(await shop.get(path, shop.admin), 200)["used"]
    return [
        *_compare("voucher uses", len([one for one in discounts if one]), LIMIT),
        *_compare("orders", len(orders), LIMIT),
        *_compare("counted uses", used, LIMIT),
        *(f"a discount of {one}" for one in discounts if one != PRICE // 10),
    ]


async def attack_inventory(target: Target, racers: int) -> list[str]:
    """Try to order more units than are in stock. Return the violations."""
    product_id = (await target.shop.product(stock=LIMIT, amount=PRICE))["product_id"]
    requests = _orders_of(await target.list_guest_tokens(racers), product_id)

    orders = created(await target.send_together(requests))

    violations = _compare("units sold", len(orders), LIMIT)
    return violations or _compare("units left", await target.shop.available(product_id), 0)


def created(answers: Sequence[RawResponse]) -> list[dict[str, Any]]:
    """Return the created orders. Raises AssertionError if a status is neither 201 nor 409."""
    expect_statuses(answers, 201, 409)
    return [answer.body for answer in answers if answer.status == 201]


def _orders_of(tokens: Sequence[str], product_id: str, **fields: Any) -> list[RawRequest]:
    body = {
        "lines": [{"product_id": product_id, "quantity": 1}],
        "shipping_address": "Market 1",
        "email": "ada@example.com",
        **fields,
    }
    return [RawRequest("POST", "/orders", body, token) for token in tokens]


def _compare(what: str, actual: int, expected: int) -> list[str]:
    if actual == expected:
        return []
    return [f"{actual} {what}, {'more' if actual > expected else 'fewer'} than {expected}"]
