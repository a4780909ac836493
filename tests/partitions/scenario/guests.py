"""The steps of the scenario about guests: they buy, register, and keep their orders."""

from typing import Any

from tests.partitions.scenario.steps import confirm_payment, order_of, place_order, read_order
from tests.partitions.scenario_runner import ScenarioRunner


async def guests_become_users(runner: ScenarioRunner, products: dict[str, str]) -> None:
    gina = await _create_guest(runner, "gina")
    await runner.post("/orders", "gina", order_of({products["tea"]: 1}))
    order = await _buy(runner, "gina", products)
    await runner.get("/users/me", "gina")
    await runner.get(f"/users/{gina['guest_id']}", "admin")
    body = {"username": "gina", "email": "gina@example.com", "password": "gina likes tea"}
    await runner.post("/users", body={**body, "guest_token": "no token"})
    await runner.post("/users", body={**body, "guest_token": gina["access_token"]})
    await runner.wait_until_idle()
    await _after_the_claim(runner, gina, order, products)
    await runner.sign_in("gina", body["password"])
    await runner.get("/orders", "gina")
    await runner.get("/payments", "gina")


async def guest_is_claimed_later(runner: ScenarioRunner, products: dict[str, str]) -> None:
    hugo = await _create_guest(runner, "hugo")
    order = await _buy(runner, "hugo", products)
    claim = {"guest_token": hugo["refresh_token"]}
    await runner.post("/users/me/claims", "hugo", claim)
    for user in ("anna", "anna", "carl"):
        await runner.post("/users/me/claims", user, claim)
        await runner.wait_until_idle()
    await runner.post("/users/me/claims", "carl", {"guest_token": runner.tokens["anna"]})
    await _after_the_claim(runner, hugo, order, products)
    await runner.get("/orders?limit=1", "anna")


async def _create_guest(runner: ScenarioRunner, name: str) -> dict[str, Any]:
    tokens: dict[str, Any] = await runner.request("POST", "/guests")
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    refreshed = await runner.request("POST", "/token", data=form)
    runner.tokens[name] = refreshed["access_token"]
    return {**tokens, **refreshed}


async def _buy(runner: ScenarioRunner, name: str, products: dict[str, str]) -> dict[str, Any]:
    email = f"{name}@example.com"
    order = await place_order(runner, name, {products["tea"]: 1}, email=email)
    await confirm_payment(runner, name, order)
    await runner.get("/orders", name)
    await runner.get(f"/orders?email={email.upper()}", "admin")
    await read_order(runner, order)
    for number in (order["number"], "MH-99999"):
        lookup = {"number": number, "email": email}
        await runner.post("/orders/lookup", body=lookup, key=None)
        await runner.wait_until_idle()
    return order


async def _after_the_claim(
    runner: ScenarioRunner, guest: dict[str, Any], order: dict[str, Any], products: dict[str, str]
) -> None:
    """Use the tokens of the guest, which have no effect after the claim."""
    tokens = runner.tokens
    tokens["guest"] = guest["access_token"]
    await read_order(runner, order)
    await runner.get(f"/orders/{order['order_id']}", "guest")
    await runner.get(f"/payments/{order['payment']['payment_id']}", "guest")
    await place_order(runner, "guest", {products["tea"]: 1}, email="guest@example.com")
    form = {"grant_type": "refresh_token", "refresh_token": guest["refresh_token"]}
    await runner.request("POST", "/token", data=form)
