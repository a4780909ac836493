"""Test that the hand-written purchase of the benchmark has the guarantees of the application."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID, uuid4

import httpx2
import pytest

from bench.hand_written.models import ConfirmRequest
from bench.hand_written.purchases import KeyedRequest, Limits
from bench.hand_written.statements import BEGIN_CHARGE
from bench.hand_written.tokens import TokenSigner
from bench.wire import RecordingProxy, recording_proxy
from tests.conftest import plain
from tests.hand_written_shop import ADDRESS, CUSTOMERS, STOCK, HandWrittenShop, open_shop

# place and the relay of its event; both statements of confirm; the events of the payment
MAX_ROUND_TRIPS: Final = 8


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[HandWrittenShop]:
    async with open_shop(plain(database_url), Limits()) as shop:
        yield shop


def _code(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


async def test_repeat_of_a_key_gets_the_stored_answer(shop: HandWrittenShop) -> None:
    placed = await shop.place(key="order")
    payment_id = placed.json()["payment"]["payment_id"]
    confirmed = await shop.confirm(payment_id, key="payment")

    placed_again = await shop.place(key="order")
    confirmed_again = await shop.confirm(payment_id, key="payment")

    assert (placed_again.status_code, placed_again.text) == (201, placed.text)
    assert (confirmed_again.status_code, confirmed_again.text) == (200, confirmed.text)
    assert confirmed.json()["status"] == "captured"
    assert await shop.violations() == {}
    assert await shop.statuses() == {"processing": 1}


async def test_key_of_another_request_is_rejected(shop: HandWrittenShop) -> None:
    await shop.place(key="order")

    other_quantity = await shop.place(key="order", quantity=2)
    other_customer = await shop.place(key="order", customer=1)

    assert _code(other_quantity) == (422, "key_used_with_another_request")
    assert other_customer.status_code == 201
    assert await shop.violations() == {}


async def test_concurrent_requests_with_one_key_place_one_order(shop: HandWrittenShop) -> None:
    answers = await asyncio.gather(*(shop.place(key="order") for _ in range(10)))

    assert {answer.text for answer in answers} == {answers[0].text}
    assert await shop.statuses() == {"pending": 1}
    assert await shop.violations() == {}


async def test_concurrent_customers_never_get_more_than_the_stock(shop: HandWrittenShop) -> None:
    keys = [f"order-{customer}" for customer in range(CUSTOMERS)]
    answers = await asyncio.gather(*map(shop.place, range(CUSTOMERS), keys))

    assert Counter(answer.status_code for answer in answers) == {
        201: STOCK,
        409: CUSTOMERS - STOCK,
    }
    sold_out = next(number for number, each in enumerate(answers) if each.status_code == 409)
    assert _code(answers[sold_out]) == (409, "out_of_stock")
    assert await shop.violations() == {}

    # the rejection is the stored answer of its key, also when there is stock again
    await shop.database.execute("UPDATE stock SET on_hand = on_hand + 1")
    assert _code(await shop.place(sold_out, keys[sold_out])) == (409, "out_of_stock")
    assert (await shop.place(sold_out)).status_code == 201


async def test_limits_hold_under_concurrency(database_url: str) -> None:
    limits = Limits(max_unpaid_orders=2, max_reserved_units=5)
    async with open_shop(plain(database_url), limits, stock=100) as shop:
        answers = await asyncio.gather(*(shop.place() for _ in range(6)))
        units = await asyncio.gather(*(shop.place(1, quantity=3) for _ in range(2)))
        too_large = await shop.place(2, quantity=6)

        assert Counter(answer.status_code for answer in answers) == {201: 2, 409: 4}
        assert _code(await shop.place()) == (409, "too_many_unpaid_orders")
        assert sorted(answer.status_code for answer in units) == [201, 409]
        assert _code(await shop.place(1, quantity=3)) == (409, "too_many_units")
        assert _code(too_large) == (409, "too_many_units")
        assert await shop.violations() == {}

        await shop.buy(3)
        assert await shop.violations() == {}
        # the paid order counts no longer
        assert (await shop.place(3, quantity=5)).status_code == 201


async def test_concurrent_confirms_capture_once(shop: HandWrittenShop) -> None:
    payment_id = await shop.place_payment()

    answers = await asyncio.gather(*(shop.confirm(payment_id) for _ in range(10)))

    statuses = Counter(answer.status_code for answer in answers)
    assert statuses == {200: 1, 409: 9}
    assert await shop.database.fetchval("SELECT count(*) FROM postings") == 1
    assert await shop.violations() == {}


async def test_concurrent_confirms_with_one_key_get_one_answer(shop: HandWrittenShop) -> None:
    payment_id = await shop.place_payment()

    answers = await asyncio.gather(*(shop.confirm(payment_id, "payment") for _ in range(10)))

    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert await shop.database.fetchval("SELECT count(*) FROM postings") == 1
    assert await shop.violations() == {}


async def test_declined_payment_can_be_confirmed_again(shop: HandWrittenShop) -> None:
    payment_id = await shop.place_payment()

    declined = await shop.confirm(payment_id, "first", "sandbox_declined")
    repeated = await shop.confirm(payment_id, "first", "sandbox_declined")
    other_method = await shop.confirm(payment_id, "first", "sandbox_ok")
    captured = await shop.confirm(payment_id, "second", "sandbox_ok")

    assert declined.json()["failure_code"] == "card_declined"
    assert repeated.text == declined.text
    assert _code(other_method) == (422, "key_used_with_another_request")
    assert captured.json()["status"] == "captured"
    assert await shop.violations() == {}


async def test_payment_of_another_customer_is_not_found(shop: HandWrittenShop) -> None:
    answer = await shop.confirm(await shop.place_payment(), customer=1)

    assert _code(answer) == (404, "payment_not_found")


@pytest.mark.parametrize("driven_by", ["retry", "job"])
async def test_crash_during_a_charge_leaves_a_recoverable_operation(
    shop: HandWrittenShop, driven_by: str
) -> None:
    payment_id = await shop.place_payment()
    await _begin_charge(shop, payment_id, "payment")
    assert _code(await shop.confirm(payment_id, "other")) == (409, "payment_in_progress")

    if driven_by == "job":
        await shop.run_periodic_jobs()
    answer = await shop.confirm(payment_id, "payment")

    assert answer.json()["status"] == "captured"
    assert await shop.violations() == {}
    assert await shop.statuses() == {"processing": 1}


async def _begin_charge(shop: HandWrittenShop, payment_id: str, key: str) -> None:
    """Run only the first transaction of a confirm, as a process that crashes after it."""
    path, body = f"/payments/{payment_id}/confirm", ConfirmRequest(payment_method="sandbox_ok")
    request = KeyedRequest.build(shop.customers[0], key, path, body.model_dump_json())
    owner = request.customer_id, request.key, request.request_hash
    values = UUID(payment_id), uuid4(), body.payment_method
    assert await shop.database.fetchrow(BEGIN_CHARGE, *owner, *values)


async def test_unpaid_order_expires_and_releases_its_stock(shop: HandWrittenShop) -> None:
    payment_ids = [await shop.place_payment(customer) for customer in range(STOCK)]
    await shop.confirm(payment_ids[0])
    await shop.confirm(payment_ids[1], method="sandbox_declined", customer=1)
    await shop.database.execute("UPDATE payments SET expires_at = now() - interval '1 second'")

    late = await shop.confirm(payment_ids[2], customer=2)
    await shop.run_periodic_jobs()

    assert _code(late) == (409, "payment_not_payable")
    assert await shop.violations() == {}
    assert await shop.statuses() == {"processing": 1, "expired": 2}
    assert (await shop.place(quantity=STOCK - 1)).status_code == 201


async def test_price_and_name_are_those_at_the_time_of_the_order(shop: HandWrittenShop) -> None:
    placed = (await shop.place(key="order", quantity=2)).json()

    await shop.database.execute("UPDATE products SET price = 5, name = 'Other'")

    assert (await shop.place(key="order")).status_code == 422
    assert (await shop.place(key="order", quantity=2)).json() == placed
    assert placed["total"] == {"amount": 2002, "currency": "EUR"}
    assert placed["lines"][0]["name"] == "Market apron no. 1"
    line = await shop.database.fetchrow("TABLE order_lines")
    assert line is not None
    assert (line["unit_price"], line["total"], line["name"]) == (1001, 2002, "Market apron no. 1")


async def test_only_valid_tokens_of_active_customers_place_orders(shop: HandWrittenShop) -> None:
    headers = {"Idempotency-Key": "order"}
    body = {"lines": [], "shipping_address": ADDRESS}
    forged = TokenSigner().sign(shop.customers[0])
    expired = shop.signer.sign(shop.customers[0], lifetime_seconds=-1)
    for token in (forged, expired, "", "a.b.c"):
        headers["Authorization"] = f"Bearer {token}"
        answer = await shop.http.post("/orders", json=body, headers=headers)
        assert _code(answer) == (401, "unauthenticated")

    await shop.database.execute("UPDATE customers SET is_active = false")
    assert _code(await shop.place()) == (403, "customer_inactive")
    assert await shop.statuses() == {}


async def test_invalid_bodies_are_rejected(shop: HandWrittenShop) -> None:
    line = {"product_id": str(shop.product_id), "quantity": 1}
    address = {"shipping_address": ADDRESS}
    for body in (
        {"lines": [], **address},
        {"lines": [line | {"quantity": 0}], **address},
        {"lines": [line | {"color": "red"}], **address},
        {"lines": [line], "shipping_address": ADDRESS | {"country": "Narnia"}},
    ):
        assert (await shop.post("/orders", body)).status_code == 422
    unknown = {"lines": [line | {"product_id": str(uuid4())}], **address}
    assert _code(await shop.post("/orders", unknown)) == (404, "product_not_found")


async def test_concurrent_purchases_keep_the_books_right(database_url: str) -> None:
    async with open_shop(plain(database_url), Limits(), stock=1000) as shop:
        await asyncio.gather(
            *(_buy_repeatedly(shop, customer, 10) for customer in range(CUSTOMERS))
        )

        assert await shop.violations() == {}
        assert await shop.statuses() == {"processing": 10 * CUSTOMERS}
        numbers = [row["number"] for row in await shop.database.fetch("TABLE invoices")]
        assert sorted(numbers) == list(range(1, 10 * CUSTOMERS + 1))


async def _buy_repeatedly(shop: HandWrittenShop, customer: int, purchases: int) -> None:
    for _ in range(purchases):
        await shop.buy(customer)


async def test_purchase_takes_few_round_trips(database_url: str) -> None:
    async with recording_proxy(database_url) as (proxy, url):
        limits, direct = Limits(), plain(database_url)
        async with open_shop(direct, limits, 100, plain(url), poll_seconds=3600) as shop:
            # the first purchases also prepare the statements of the connections
            for _ in range(10):
                await shop.buy()
                assert await shop.violations() == {}
            statements = await _record_purchase(shop, proxy)

    print("\n".join(" ".join(sql.split())[:100] for sql in statements))
    assert len(statements) <= MAX_ROUND_TRIPS


async def _record_purchase(shop: HandWrittenShop, proxy: RecordingProxy) -> list[str]:
    """Return the statements of a purchase and of its events, without those of an idle process."""
    before = proxy.round_trips
    payment_id = await shop.place_payment()
    await shop.violations()  # waits for the event of the order
    await shop.confirm(payment_id)
    assert await shop.violations() == {}
    return proxy.statements[before:]
