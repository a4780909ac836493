"""The steps of the scenario about products and stock."""

from typing import Any

from tests.inventory.image_files import png
from tests.partitions.scenario.steps import NOWHERE
from tests.partitions.scenario_runner import ScenarioRunner


async def create_products(runner: ScenarioRunner) -> dict[str, str]:
    products = {
        "tea": await _product(runner, "TEA", 1250, 20, category="tea", tags=["green"]),
        "mug": await _product(runner, "MUG", 890, 20, options={"colour": "blue"}),
        "rare": await _product(runner, "RARE", 99900, 1, attributes={"age": 80, "signed": True}),
        "dollar": await _product(runner, "DOLLAR", 100, 5, currency="USD"),
        "draft": await _product(runner, "DRAFT", 100, 5, status="draft"),
    }
    await _catalogue(runner, products)
    await _stock(runner, products)
    await _image(runner)
    return products


async def _product(
    runner: ScenarioRunner, sku: str, amount: int, stock: int, currency: str = "EUR", **fields: Any
) -> str:
    price = {"amount": amount, "currency": currency}
    body = {"sku": sku, "name": f"The {sku.lower()}", "price": price, **fields}
    product = await runner.post("/products", "admin", body)
    path = f"/products/{product['product_id']}/stock-adjustments"
    await runner.post(path, "admin", {"delta": stock, "reason": "received", "note": "first"})
    return str(product["product_id"])


async def _catalogue(runner: ScenarioRunner, products: dict[str, str]) -> None:
    tea = f"/products/{products['tea']}"
    page = await runner.get("/products?limit=2&sort=price")
    await runner.get(f"/products?limit=2&sort=price&cursor={page['next_cursor']}")
    for query in ("?q=mug", "?category=tea", "?colour=blue", "?status=draft", "?cursor=forged"):
        await runner.get(f"/products{query}")
    found = await runner.get(tea)
    await runner.get(tea, headers={"if-none-match": found["etag"]})
    await runner.get("/products/by-sku/tea")
    await runner.get(f"/products/{products['draft']}")
    await runner.get(f"/products/{products['draft']}", "admin")
    await runner.get(f"/products/{NOWHERE}")
    await runner.get("/products/no-id")
    await runner.get("/categories")
    sku = {"sku": "tea", "name": "Again", "price": {"amount": 1, "currency": "EUR"}}
    for user in ("admin", "anna", ""):
        await runner.post("/products", user, sku)
    await runner.patch(tea, "admin", {"description": "From Uji."})
    await runner.patch(tea, "admin", {"description": "From Uji."}, etag='"v1"')
    await runner.patch(tea, "admin", {"description": "Too late."}, etag='"v1"')
    await runner.get(tea)


async def _stock(runner: ScenarioRunner, products: dict[str, str]) -> None:
    path = f"/products/{products['mug']}/stock-adjustments"
    await runner.post(path, "admin", {"delta": -21, "reason": "damaged"})
    await runner.post(path, "admin", {"counted": 19, "reason": "counted"})
    await runner.post(path, "admin", {"delta": 1, "reason": "found"}, key=None)
    await runner.post(path, "anna", {"delta": 1, "reason": "found"})
    await runner.post(path, "admin", {"delta": "1", "reason": "found"})
    await runner.get(f"/products/{products['mug']}/stock", "admin")
    await runner.get(f"/products/{products['mug']}/stock-movements", "admin")


async def _image(runner: ScenarioRunner) -> None:
    files = {"file": ("tea.png", png(), "image/png")}
    image = await runner.request("POST", "/media", "admin", files=files)
    await runner.request("POST", "/media", "anna", files=files)
    await runner.request("POST", "/media", "admin", files={"file": ("tea.svg", b"<svg/>")})
    path = f"/media/{image['media_id']}"
    for known in (f"{path}/64.webp", path):
        await runner.get(known, headers={"if-none-match": "*"})
    for unknown in (f"{path}/65.webp", f"{path}/a.webp", f"/media/{NOWHERE}/64.webp"):
        await runner.get(unknown)
    await runner.get("/media", "admin")
    await runner.get("/media", "anna")
    other = await runner.request("POST", "/media", "admin", files=files)
    other_path = f"/media/{other['media_id']}"
    await runner.request("DELETE", other_path, "admin")
    await runner.request("DELETE", other_path, "admin", headers={"if-match": other["etag"]})
    await runner.get(other_path)
