"""HTTP API of carts, on each storage."""

from typing import Any
from uuid import UUID

import httpx2

from tests.orders.carts.conftest import guest_context
from tests.orders.conftest import STAFF
from tests.orders.test_router import OrderClient


async def create(order_client: OrderClient, **fields: Any) -> tuple[str, dict[str, Any]]:
    """Create a cart with two units of a product. Return its path and the cart."""
    product_id = str(order_client.orders_app.fake_inventory.add_product(5))
    body = {"lines": [{"product_id": product_id, "quantity": 2}], **fields}
    response = await order_client.send("POST", "/carts", json=body)
    assert response.status_code == 201, response.text
    return response.headers["location"], response.json()


async def test_created_cart_has_a_location_and_a_tag(order_client: OrderClient) -> None:
    product_id = str(order_client.orders_app.fake_inventory.add_product(5))
    body = {"lines": [{"product_id": product_id, "quantity": 2}]}
    headers = {"Idempotency-Key": "cart"}

    first = await order_client.send("POST", "/carts", json=body, headers=headers)
    again = await order_client.send("POST", "/carts", json=body, headers=headers)

    cart = first.json()
    assert first.headers["location"] == f"/carts/{cart['cart_id']}"
    assert first.headers["etag"] == '"v1"'
    assert (again.json(), again.headers["idempotency-replayed"]) == (cart, "true")
    assert cart["totals"]["total"] == {"amount": 2000, "currency": "EUR"}


async def test_tag_of_a_cart_follows_the_prices(order_client: OrderClient) -> None:
    path, cart = await create(order_client)

    first = await order_client.send("GET", path)
    known = {"If-None-Match": first.headers["etag"]}
    same = await order_client.send("GET", path, headers=known)
    order_client.orders_app.fake_inventory.reprice(UUID(cart["lines"][0]["product_id"]), 1100)
    other = await order_client.send("GET", path, headers=known)

    assert (same.status_code, other.status_code) == (304, 200)
    assert [change["kind"] for change in other.json()["changes"]] == ["price_changed"]


async def test_tag_of_a_read_is_accepted_by_a_change(order_client: OrderClient) -> None:
    path, _ = await create(order_client)
    headers = {"If-Match": (await order_client.send("GET", path)).headers["etag"]}

    changed = await order_client.send("PUT", path, json={"note": "wrap it"}, headers=headers)
    stale = await order_client.send("PUT", path, json={"note": "later"}, headers=headers)

    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    assert (stale.status_code, stale.json()["code"]) == (412, "request.if_match_failed")


async def test_staff_need_if_match(order_client: OrderClient) -> None:
    path, cart = await create(order_client)
    line = f"{path}/lines/{cart['lines'][0]['product_id']}"

    for method, target, options in (
        ("PUT", path, {"json": {"note": "by staff"}}),
        ("PUT", line, {"json": {"quantity": 1}}),
        ("DELETE", line, {}),
        ("PUT", f"{path}/voucher", {"json": {"code": "SPRING10"}}),
        ("DELETE", f"{path}/voucher", {}),
    ):
        response = await order_client.send(method, target, STAFF, **options)
        assert response.status_code == 428, target


async def test_removal_answers_204_with_the_new_tag(order_client: OrderClient) -> None:
    path, cart = await create(order_client)
    line = f"{path}/lines/{cart['lines'][0]['product_id']}"

    removed = await order_client.send("DELETE", line)
    again = await order_client.send("DELETE", line)

    assert (removed.status_code, removed.content, removed.headers["etag"]) == (204, b"", '"v2"')
    assert (again.status_code, again.headers["etag"]) == (204, '"v2"')


async def test_checkout_needs_a_key_and_replays_its_answer(order_client: OrderClient) -> None:
    path, _ = await create(order_client, shipping_address="Market 1")
    headers = {"Idempotency-Key": "checkout"}

    without = await order_client.send("POST", f"{path}/checkout", json={})
    first = await order_client.send("POST", f"{path}/checkout", json={}, headers=headers)
    again = await order_client.send("POST", f"{path}/checkout", json={}, headers=headers)
    other = await order_client.send(
        "POST", f"{path}/checkout", json={}, headers={"Idempotency-Key": "other"}
    )

    assert (without.status_code, without.json()["code"]) == (400, "idempotency.key_missing")
    order_id = first.json()["order_id"]
    assert (first.status_code, first.headers["location"]) == (201, f"/orders/{order_id}")
    assert again.json() == first.json()
    assert (other.status_code, other.json()["code"]) == (409, "orders.cart_closed")
    assert other.json()["details"]["order_id"] == order_id


async def test_checkout_without_a_key_is_refused_before_other_headers_are_read(
    order_client: OrderClient,
) -> None:
    path, _ = await create(order_client, shipping_address="Market 1")

    for if_match in ("not an entity tag", '"v99"'):
        response = await order_client.send(
            "POST", f"{path}/checkout", json={}, headers={"If-Match": if_match}
        )

        assert (response.status_code, response.json()["code"]) == (400, "idempotency.key_missing")


async def test_invalid_changes_are_rejected(order_client: OrderClient) -> None:
    path, cart = await create(order_client)
    product_id = cart["lines"][0]["product_id"]
    line = {"product_id": product_id, "quantity": 1}

    for method, target, body, status in (
        ("POST", "/carts", {"lines": [line, line]}, 422),
        ("POST", "/carts", {"unknown": 1}, 422),
        ("POST", "/carts", {"currency": "EURO"}, 422),
        ("PUT", path, {"metadata": {"a b": "c"}}, 422),
        ("PUT", path, {"email": "not an address"}, 422),
        ("PUT", f"{path}/lines/{product_id}", {"quantity": 0}, 422),
        ("PUT", f"{path}/lines/{product_id}", {"quantity": 1000}, 422),
        ("PUT", f"{path}/lines/{product_id}", {"quantity": 1.0}, 422),
        ("PUT", f"{path}/lines/{cart['cart_id']}", {"quantity": 1}, 404),
        ("PUT", f"{path}/lines/x", {"quantity": 1}, 422),
        ("PUT", f"{path}/voucher", {"code": "UNKNOWN"}, 422),
        ("POST", f"{path}/merge", {"source_cart_id": cart["cart_id"]}, 422),
    ):
        response = await order_client.send(method, target, json=body)
        assert response.status_code == status, (method, target, body, response.text)
    assert (await order_client.send("GET", path)).json()["version"] == 1


async def test_guest_checks_out_with_an_email(order_client: OrderClient) -> None:
    guest = guest_context()
    product_id = str(order_client.orders_app.fake_inventory.add_product(5))
    body = {"lines": [{"product_id": product_id, "quantity": 1}], "shipping_address": "Market 1"}
    path = (await order_client.send("POST", "/carts", guest, json=body)).headers["location"]

    async def check_out(key: str) -> httpx2.Response:
        headers = {"Idempotency-Key": key}
        return await order_client.send("POST", f"{path}/checkout", guest, json={}, headers=headers)

    early = await check_out("early")
    await order_client.send("PUT", path, guest, json={"email": "a@example.com"})
    late = await check_out("late")

    assert (early.status_code, early.json()["code"]) == (409, "orders.cart_not_ready")
    assert early.json()["details"]["readiness"][0]["field"] == "/email"
    assert (late.status_code, late.json()["email"]) == (201, "a@example.com")
