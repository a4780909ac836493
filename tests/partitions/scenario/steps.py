"""What every chapter does with an order; each time all comes to rest."""

from typing import Any, Final

from tests.partitions.scenario_runner import ScenarioRunner

NOWHERE: Final = "01890000-0000-7000-8000-000000000000"
STREET: Final = "Market 1"


def order_of(lines: dict[str, int], **fields: Any) -> dict[str, Any]:
    wanted = [{"product_id": product, "quantity": many} for product, many in lines.items()]
    return {"lines": wanted, "shipping_address": STREET, **fields}


async def placed(
    p: ScenarioRunner, who: str, lines: dict[str, int], **fields: Any
) -> dict[str, Any]:
    order: dict[str, Any] = await p.post("/orders", who, order_of(lines, **fields))
    await p.wait_until_idle()
    return order


async def confirmed(
    p: ScenarioRunner, who: str, order: dict[str, Any], method: str = "sandbox_ok"
) -> Any:
    path = f"/payments/{order['payment']['payment_id']}/confirm"
    payment = await p.post(path, who, {"payment_method": method})
    await p.wait_until_idle()
    return payment


async def cancel(p: ScenarioRunner, who: str, order: dict[str, Any], reason: str) -> None:
    await p.post(f"/orders/{order['order_id']}/cancel", who, {"reason": reason})
    await p.wait_until_idle()


async def told(p: ScenarioRunner, order: dict[str, Any]) -> None:
    """Everything that can be read about an order."""
    place, payment = f"/orders/{order['order_id']}", f"/payments/{order['payment']['payment_id']}"
    for path in (place, f"{place}/status", f"{place}/timeline", payment, f"{payment}/operations"):
        await p.get(path, "admin")
    for path in (f"/reservations?order_id={order['order_id']}", f"{payment}/refunds"):
        await p.get(path, "admin")


async def parcel(
    p: ScenarioRunner, order: dict[str, Any], lines: list[dict[str, Any]] | None = None
) -> None:
    """Sent, and delivered if it was."""
    body = {"carrier": "DHL", "tracking_number": "JD01", **({"lines": lines} if lines else {})}
    sent = await p.post(f"/orders/{order['order_id']}/fulfilments", "admin", body)
    await p.wait_until_idle()
    if "fulfilment_id" in sent:
        path = f"/fulfilments/{sent['fulfilment_id']}"
        await p.post(f"{path}/deliver", "admin")
        await p.wait_until_idle()
        await p.post(f"{path}/deliver", "admin")
        await p.get(path, "anna")
