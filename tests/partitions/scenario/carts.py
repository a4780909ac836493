"""The steps of the scenario about carts: change, merge and check them out."""

from typing import Any

from tests.partitions.scenario.steps import NOWHERE, STREET, confirm_payment, read_order
from tests.partitions.scenario_runner import ScenarioRunner


async def cart_to_paid_order(runner: ScenarioRunner, products: dict[str, str]) -> None:
    tea = products["tea"]
    cart = await _create_cart(runner, "anna", {tea: 1}, note="wrap it")
    path = f"/carts/{cart['cart_id']}"
    await runner.request("PUT", f"{path}/lines/{tea}", "anna", json={"quantity": 2})
    await runner.request("PUT", f"{path}/lines/{NOWHERE}", "anna", json={"quantity": 2})
    await runner.request("PUT", path, "anna", json={"currency": "JPY"})
    await runner.request("PUT", path, "admin", json={"note": "by staff"})
    await runner.request(
        "PUT", path, "admin", json={"note": "by staff"}, headers={"if-match": '"v2"'}
    )
    await runner.get(path, "carl")
    await runner.post(f"{path}/checkout", "anna", {})
    await runner.request("PUT", path, "anna", json={"shipping_address": STREET})
    await runner.get(path, "anna")
    await runner.get(f"{path}/shipping-options", "anna")
    await runner.post(f"{path}/checkout", "anna", {"expected_total": _euros(1)})
    await runner.post(f"{path}/checkout", "anna", {}, key=None)
    order = await runner.post(f"{path}/checkout", "anna", {}, key="of-the-cart")
    await runner.wait_until_idle()
    await runner.post(f"{path}/checkout", "anna", {}, key="of-the-cart")
    await runner.post(f"{path}/checkout", "anna", {})
    await runner.request("DELETE", f"{path}/lines/{tea}", "anna")
    await runner.get(path, "anna")
    await confirm_payment(runner, "anna", order)
    await read_order(runner, order)


async def merged_carts(runner: ScenarioRunner, products: dict[str, str]) -> None:
    """A guest fills a cart; after a login its lines are added to the cart of the user."""
    guest = await runner.request("POST", "/guests")
    runner.tokens["ida"] = guest["access_token"]
    own = await _create_cart(runner, "anna", {products["tea"]: 1})
    source = await _create_cart(runner, "ida", {products["tea"]: 2})
    path, body = f"/carts/{own['cart_id']}/merge", {"source_cart_id": source["cart_id"]}
    await runner.post(path, "anna", body)
    await runner.post(path, "anna", {**body, "guest_token": "no token"})
    with_token = {**body, "guest_token": guest["access_token"]}
    await runner.post(path, "anna", with_token)
    await runner.post(path, "anna", with_token)
    await runner.get(f"/carts/{source['cart_id']}", "ida")
    await runner.request("DELETE", f"/carts/{own['cart_id']}/lines/{products['tea']}", "anna")
    await runner.get(f"/carts/{own['cart_id']}", "anna")


async def cart_of_a_claimed_guest(runner: ScenarioRunner, products: dict[str, str]) -> None:
    guest = await runner.request("POST", "/guests")
    runner.tokens["jana"] = guest["access_token"]
    cart = await _create_cart(runner, "jana", {products["tea"]: 1}, email="jana@example.com")
    claim = {"guest_token": guest["access_token"]}
    await runner.post("/users/me/claims", "carl", claim)
    await runner.wait_until_idle()
    await runner.get(f"/carts/{cart['cart_id']}", "carl")
    await runner.get(f"/carts/{cart['cart_id']}", "jana")


async def _create_cart(
    runner: ScenarioRunner, user: str, lines: dict[str, int], **fields: Any
) -> dict[str, Any]:
    cart_lines = [
        {"product_id": product, "quantity": quantity} for product, quantity in lines.items()
    ]
    cart: dict[str, Any] = await runner.post("/carts", user, {"lines": cart_lines, **fields})
    return cart


def _euros(amount: int) -> dict[str, Any]:
    return {"amount": amount, "currency": "EUR"}
