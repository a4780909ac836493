"""What there is to buy."""

from typing import Any

from tests.partitions.scenario.steps import NOWHERE
from tests.partitions.scenario_runner import ScenarioRunner


async def shelves(p: ScenarioRunner) -> dict[str, str]:
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
    p: ScenarioRunner, sku: str, amount: int, stock: int, currency: str = "EUR", **fields: Any
) -> str:
    price = {"amount": amount, "currency": currency}
    body = {"sku": sku, "name": f"The {sku.lower()}", "price": price, **fields}
    product = await p.post("/products", "admin", body)
    path = f"/products/{product['product_id']}/stock-adjustments"
    await p.post(path, "admin", {"delta": stock, "reason": "received", "note": "first"})
    return str(product["product_id"])


async def _catalogue(p: ScenarioRunner, goods: dict[str, str]) -> None:
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


async def _stock(p: ScenarioRunner, goods: dict[str, str]) -> None:
    path = f"/products/{goods['mug']}/stock-adjustments"
    await p.post(path, "admin", {"delta": -21, "reason": "damaged"})
    await p.post(path, "admin", {"counted": 19, "reason": "counted"})
    await p.post(path, "admin", {"delta": 1, "reason": "found"}, key=None)
    await p.post(path, "anna", {"delta": 1, "reason": "found"})
    await p.post(path, "admin", {"delta": "1", "reason": "found"})
    await p.get(f"/products/{goods['mug']}/stock", "admin")
    await p.get(f"/products/{goods['mug']}/stock-movements", "admin")
