"""Test the order flow in every topology, over HTTP."""

import asyncio
import secrets

import pytest

from tests.e2e.shop import Shop, expect_problem, expect_status


async def test_customer_registers(shop: Shop) -> None:
    name = f"anna-{secrets.token_hex(4)}"
    body = {"username": name, "email": f"{name}@example.com", "password": "a long enough one"}

    answer = await shop.post("/users", json=body)

    user = expect_status(answer, 201)
    assert answer.headers["location"] == f"/users/{user['user_id']}"
    assert user["username"] == name
    assert user["is_active"] is True
    assert "password" not in answer.text


async def test_token_identifies_user(shop: Shop) -> None:
    buyer = await shop.customer()

    me = expect_status(await shop.get("/users/me", buyer), 200)

    assert me["user_id"] == buyer.user_id
    assert me["roles"] == ["customer"]


async def test_missing_token_is_rejected(shop: Shop) -> None:
    answer = await shop.get("/users/me")

    expect_problem(answer, 401, "auth.unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_products_are_public(shop: Shop) -> None:
    product = await shop.product(stock=3)

    page = expect_status(await shop.get("/products?limit=100&sort=-created_at"), 200)
    one = expect_status(await shop.get(f"/products/{product['product_id']}"), 200)

    assert product["product_id"] in [item["product_id"] for item in page["items"]]
    assert one["sku"] == product["sku"]
    assert one["available"] == 3


async def test_cart_becomes_one_paid_order(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=5, amount=1250)
    line = {"product_id": product["product_id"], "quantity": 1}
    created = await shop.post("/carts", buyer, json={"lines": [line]})
    path = created.headers["location"]
    await shop.send("PUT", f"{path}/lines/{line['product_id']}", buyer, json={"quantity": 2})
    await shop.send("PUT", path, buyer, json={"shipping_address": "Market 1"})
    cart = expect_status(await shop.get(path, buyer), 200)
    body = {"expected_total": cart["totals"]["total"]}

    placed = await shop.post(f"{path}/checkout", buyer, json=body)
    again = await shop.post(f"{path}/checkout", buyer, json=body)

    order = expect_status(placed, 201)
    assert cart["readiness"] == []
    assert (order["cart_id"], order["total"]["amount"]) == (cart["cart_id"], 2500)
    problem = expect_problem(again, 409, "orders.cart_closed")
    assert problem["details"]["order_id"] == order["order_id"]
    expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    await shop.wait_for_status(buyer, order["order_id"], status="processing")


async def test_order_is_paid_fulfilled_and_delivered(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=5, amount=1250)

    placed = await shop.place(buyer, product["product_id"], quantity=2)

    order = expect_status(placed, 201)
    order_id, payment_id = order["order_id"], order["payment"]["payment_id"]
    assert placed.headers["location"] == f"/orders/{order_id}"
    assert order["status"] == "pending"
    assert order["total"] == {"amount": 2500, "currency": "EUR"}
    assert await shop.available(product["product_id"]) == 3

    payment = expect_status(await shop.confirm(buyer, payment_id), 200)
    assert payment["status"] == "captured"
    assert payment["captured"] == order["total"]
    status = await shop.wait_for_status(buyer, order_id, status="processing")
    assert status["payment_status"] == "paid"

    parcel = {"carrier": "DHL", "tracking_number": "JD0123456789"}
    response = await shop.post(f"/orders/{order_id}/fulfilments", shop.admin, json=parcel)
    fulfilment = expect_status(response, 201)
    assert (await shop.status(buyer, order_id))["fulfilment_status"] == "fulfilled"
    path = f"/fulfilments/{fulfilment['fulfilment_id']}/deliver"
    expect_status(await shop.post(path, shop.admin), 200)

    done = await shop.wait_for_status(buyer, order_id, status="completed")
    assert done["fulfilment_status"] == "delivered"
    assert await shop.available(product["product_id"]) == 3


async def test_timeline_records_actor_of_each_change(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product()
    order = expect_status(await shop.place(buyer, product["product_id"]), 201)
    await shop.confirm(buyer, order["payment"]["payment_id"])
    await shop.wait_for_status(buyer, order["order_id"], status="processing")

    timeline = expect_status(await shop.get(f"/orders/{order['order_id']}/timeline", buyer), 200)

    actors = [entry["actor"] for entry in timeline["items"]]
    assert actors[0] == f"user:{buyer.user_id}"
    assert any(actor.startswith("system:") for actor in actors)


async def test_declined_order_can_be_paid_again(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product()
    order = expect_status(await shop.place(buyer, product["product_id"]), 201)
    payment_id = order["payment"]["payment_id"]

    declined = expect_status(await shop.confirm(buyer, payment_id, "sandbox_declined"), 200)
    await shop.wait_for_status(buyer, order["order_id"], payment_status="failed")
    paid = expect_status(await shop.confirm(buyer, payment_id), 200)

    assert declined["status"] == "failed"
    assert declined["failure_code"]
    assert paid["status"] == "captured"
    await shop.wait_for_status(buyer, order["order_id"], status="processing", payment_status="paid")


@pytest.mark.parametrize(
    ("method", "status"),
    [("sandbox_action_required", "requires_action"), ("sandbox_timeout_before", "unknown")],
)
async def test_order_shows_the_status_of_its_payment(shop: Shop, method: str, status: str) -> None:
    buyer, product = await shop.customer(), await shop.product()
    order = expect_status(await shop.place(buyer, product["product_id"]), 201)
    payment_id = order["payment"]["payment_id"]

    payment = (await shop.confirm(buyer, payment_id, method)).json()
    shown = {"payment_id": payment_id, "status": status}
    after = await shop.wait_for_order_fields(buyer, order["order_id"], payment=shown)

    assert payment["status"] == status
    assert (after["status"], after["payment_status"]) == ("pending", "none")


async def test_one_request_waits_until_the_captured_order_is_paid(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product()
    order = expect_status(await shop.place(buyer, product["product_id"]), 201)
    path = f"/orders/{order['order_id']}/status"
    tag = {"If-None-Match": (await shop.get(path, buyer)).headers["etag"]}
    waits = [
        asyncio.create_task(shop.get(f"{path}?wait=25", buyer)),
        asyncio.create_task(shop.get(f"{path}?wait=25", buyer, headers=tag)),
    ]

    expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    paid, changed = [expect_status(await wait, 200) for wait in waits]
    known = await shop.get(f"{path}?wait=1", buyer, headers={"If-None-Match": "*"})

    assert (paid["status"], paid["payment_status"]) == ("processing", "paid")
    assert changed == paid
    assert known.status_code == 304


async def test_cancelled_order_releases_stock(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=4)
    order = expect_status(await shop.place(buyer, product["product_id"], quantity=3), 201)

    path = f"/orders/{order['order_id']}/cancel"
    cancelled = expect_status(await shop.post(path, buyer, json={"reason": "changed my mind"}), 200)

    assert cancelled["status"] == "cancelled"
    await shop.wait_for_available(product["product_id"], 4)
    # wait until `payments` has processed the cancellation; before that, a charge would succeed
    await shop.wait_for_payment(buyer, order["payment"]["payment_id"], status="cancelled")
    confirmation = await shop.confirm(buyer, order["payment"]["payment_id"])
    expect_problem(confirmation, 409, "payments.invalid_transition")


async def test_cancelled_paid_order_is_refunded(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=4)
    order = expect_status(await shop.place(buyer, product["product_id"]), 201)
    await shop.confirm(buyer, order["payment"]["payment_id"])
    await shop.wait_for_status(buyer, order["order_id"], status="processing")

    path = f"/orders/{order['order_id']}/cancel"
    expect_status(await shop.post(path, buyer, json={"reason": "too late"}), 200)

    await shop.wait_for_status(
        buyer, order["order_id"], status="cancelled", payment_status="refunded"
    )
    await shop.wait_for_available(product["product_id"], 4)
    path = f"/payments/{order['payment']['payment_id']}"
    payment = expect_status(await shop.get(path, buyer), 200)
    assert payment["refunded"] == payment["captured"]


async def test_same_key_twenty_times_places_one_order(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=50)
    key = secrets.token_hex(16)

    answers = await asyncio.gather(
        *(shop.place(buyer, product["product_id"], key=key) for _ in range(20))
    )

    placed = [answer for answer in answers if answer.status_code == 201]
    waiting = [answer for answer in answers if answer.status_code != 201]
    assert placed
    for answer in waiting:
        expect_problem(answer, 409, "idempotency.in_flight")
        assert answer.headers["retry-after"]
    assert len({answer.text for answer in placed}) == 1
    again = await shop.place(buyer, product["product_id"], key=key)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == placed[0].headers["location"]
    assert again.text == placed[0].text
    assert await shop.available(product["product_id"]) == 49


async def test_key_with_another_payload_is_rejected(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product()
    key = secrets.token_hex(16)
    await shop.place(buyer, product["product_id"], 1, key)

    answer = await shop.place(buyer, product["product_id"], 2, key)

    expect_problem(answer, 422, "idempotency.payload_mismatch")


async def test_error_response_is_replayed(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=1)
    key = secrets.token_hex(16)
    first = await shop.place(buyer, product["product_id"], 5, key)
    await shop.receive(product["product_id"], 10)

    again = await shop.place(buyer, product["product_id"], 5, key)

    line = expect_problem(first, 409, "inventory.out_of_stock")["details"]["lines"][0]
    assert line == {"product_id": product["product_id"], "requested": 5, "available": 1}
    assert expect_problem(again, 409, "inventory.out_of_stock")["details"]["lines"] == [line]
    assert again.headers["idempotency-replayed"] == "true"


async def test_payment_and_stock_changes_require_idempotency_key(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product()
    body = {"product_id": product["product_id"], "quantity": 1, "shipping_address": "Market 1"}

    answer = await shop.send("POST", "/orders", buyer, json=body)

    expect_problem(answer, 400, "idempotency.key_missing")


async def test_the_last_unit_is_sold_once(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=7)

    answers = await asyncio.gather(
        *(shop.place_until_final(buyer, product["product_id"]) for _ in range(50))
    )

    assert sum(answer.status_code == 201 for answer in answers) == 7
    for answer in answers:
        if answer.status_code != 201:
            expect_problem(answer, 409, "inventory.out_of_stock")
    assert await shop.available(product["product_id"]) == 0


async def test_unpaid_orders_per_customer_are_limited(shop: Shop) -> None:
    buyer, other = await shop.customer(), await shop.customer()
    product = await shop.product(stock=30)
    placed = [expect_status(await shop.place(buyer, product["product_id"]), 201) for _ in range(20)]

    one_more = await shop.place(buyer, product["product_id"])
    expect_status(await shop.place(other, product["product_id"]), 201)

    problem = expect_problem(one_more, 409, "inventory.too_many_reservations")
    assert problem["details"] == {"limit": 20, "open": 20}
    assert len({order["order_id"] for order in placed}) == 20
    assert await shop.available(product["product_id"]) == 9


async def test_reserved_units_per_customer_are_limited(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product(stock=1500)
    expect_status(await shop.place(buyer, product["product_id"], 600), 201)

    too_many = await shop.place(buyer, product["product_id"], 401)
    expect_status(await shop.place(buyer, product["product_id"], 400), 201)

    line = {"product_id": product["product_id"], "requested": 401, "held": 600}
    problem = expect_problem(too_many, 409, "inventory.too_many_units")
    assert problem["details"] == {"limit": 1000, "lines": [line]}
    assert await shop.available(product["product_id"]) == 500


async def test_order_is_visible_to_owner_and_staff_only(shop: Shop) -> None:
    buyer, other = await shop.customer(), await shop.customer()
    product = await shop.product()
    order = expect_status(await shop.place(buyer, product["product_id"]), 201)
    path = f"/orders/{order['order_id']}"

    missing = await shop.get("/orders/01890000-0000-7000-8000-000000000000", other)

    expect_status(await shop.get(path, buyer), 200)
    expect_status(await shop.get(path, shop.admin), 200)
    hidden = expect_problem(await shop.get(path, other), 404, "orders.not_found")
    assert hidden["title"] == expect_problem(missing, 404, "orders.not_found")["title"]


async def test_disabled_customer_cannot_order(shop: Shop) -> None:
    buyer, product = await shop.customer(), await shop.product()
    path = f"/users/{buyer.user_id}"
    tag = (await shop.get(path, shop.admin)).headers["etag"]
    change = await shop.send(
        "PATCH", path, shop.admin, json={"is_active": False}, headers={"If-Match": tag}
    )
    expect_status(change, 200)

    expect_problem(await shop.place(buyer, product["product_id"]), 403, "users.inactive")
    form = {"username": buyer.name, "password": buyer.password, "grant_type": "password"}
    expect_problem(await shop.send("POST", "/token", data=form), 401, "users.bad_credentials")


async def test_stats_require_staff(shop: Shop) -> None:
    buyer = await shop.customer()

    stats = expect_status(await shop.get("/stats", shop.admin), 200)

    assert stats["user_count"] >= 2
    expect_problem(await shop.get("/stats", buyer), 403, "auth.forbidden")
