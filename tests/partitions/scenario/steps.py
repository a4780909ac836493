"""Steps of an order that several parts of the scenario use.

A step that publishes events waits until all of them are processed.
"""

from typing import Any, Final

from tests.partitions.scenario_runner import ScenarioRunner

NOWHERE: Final = "01890000-0000-7000-8000-000000000000"
STREET: Final = "Market 1"


def order_of(lines: dict[str, int], **fields: Any) -> dict[str, Any]:
    order_lines = [
        {"product_id": product, "quantity": quantity} for product, quantity in lines.items()
    ]
    return {"lines": order_lines, "shipping_address": STREET, **fields}


async def place_order(
    runner: ScenarioRunner, user: str, lines: dict[str, int], **fields: Any
) -> dict[str, Any]:
    order: dict[str, Any] = await runner.post("/orders", user, order_of(lines, **fields))
    await runner.wait_until_idle()
    return order


async def confirm_payment(
    runner: ScenarioRunner, user: str, order: dict[str, Any], method: str = "sandbox_ok"
) -> Any:
    path = f"/payments/{order['payment']['payment_id']}/confirm"
    payment = await runner.post(path, user, {"payment_method": method})
    await runner.wait_until_idle()
    return payment


async def cancel(runner: ScenarioRunner, user: str, order: dict[str, Any], reason: str) -> None:
    await runner.post(f"/orders/{order['order_id']}/cancel", user, {"reason": reason})
    await runner.wait_until_idle()


async def read_order(runner: ScenarioRunner, order: dict[str, Any]) -> None:
    """Read all resources of an order, so that the log has their contents."""
    order_path, payment_path = (
        f"/orders/{order['order_id']}",
        f"/payments/{order['payment']['payment_id']}",
    )
    for path in (
        order_path,
        f"{order_path}/status",
        f"{order_path}/timeline",
        payment_path,
        f"{payment_path}/operations",
    ):
        await runner.get(path, "admin")
    for path in (f"/reservations?order_id={order['order_id']}", f"{payment_path}/refunds"):
        await runner.get(path, "admin")


async def fulfil(
    runner: ScenarioRunner, order: dict[str, Any], lines: list[dict[str, Any]] | None = None
) -> None:
    """Create a fulfilment and, if it was accepted, deliver it twice."""
    body = {"carrier": "DHL", "tracking_number": "JD01", **({"lines": lines} if lines else {})}
    sent = await runner.post(f"/orders/{order['order_id']}/fulfilments", "admin", body)
    await runner.wait_until_idle()
    if "fulfilment_id" in sent:
        path = f"/fulfilments/{sent['fulfilment_id']}"
        await runner.post(f"{path}/deliver", "admin")
        await runner.wait_until_idle()
        await runner.post(f"{path}/deliver", "admin")
        await runner.get(path, "anna")
        await runner.get(f"/orders/{order['order_id']}/fulfilments", "anna")
