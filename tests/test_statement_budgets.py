"""Test the number of SQL statements and context calls of a request, on Postgres."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2
import pytest

from markethall.app import Gateway, create_app
from markethall.event_workers import build_event_workers
from markethall.settings import read_settings
from markethall.shared.observability.metrics import EVENTS_HANDLED, RPC_CLIENT_CALLS, STATEMENTS
from tests.containers import inventory_of, users_of
from tests.test_app import ADMIN

BERLIN: Final = {
    "recipient": "Ada Lovelace",
    "line1": "Market 1",
    "city": "Berlin",
    "postal_code": "10115",
    "country": "DE",
}
# statements per step
CART_BUDGETS: Final = {
    "create": 4,
    "line": 4,
    "second line": 3,
    "address": 3,
    "voucher": 4,
    "checkout": 15,
}


@pytest.fixture
async def app(database_url: str, tmp_path: Any) -> AsyncIterator[Gateway]:
    """The application without its lifespan, so that no background work adds statements."""
    given = {
        "data_dir": tmp_path,
        "cache": "off",
        "database_timeout": 30,
        "request_deadline_seconds": 60,
    }
    app = create_app(read_settings(database_url=database_url, **given, **ADMIN))
    await users_of(app.container).accounts().create_first_admin(*ADMIN.values())
    yield app
    await app.container.close()


@pytest.fixture
async def http(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as http:
        form = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}
        token = (await http.post("/token", data=form)).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        yield http


@pytest.fixture
async def product_id(http: httpx2.AsyncClient) -> str:
    return await create_product(http, "TEA")


async def create_product(http: httpx2.AsyncClient, sku: str) -> str:
    price = {"amount": 1999, "currency": "EUR"}
    body = {"sku": sku, "name": "Tea", "price": price}
    product = (await http.post("/products", json=body)).json()
    path = f"/products/{product['product_id']}/stock-adjustments"
    receipt = {"delta": 100, "reason": "received"}
    headers = key(f"stock-{sku}")
    assert (await http.post(path, json=receipt, headers=headers)).status_code == 201
    return str(product["product_id"])


async def configure_voucher_and_shipping(http: httpx2.AsyncClient) -> None:
    rate = {"kind": "flat", "currency": "EUR", "price": 490}
    method = {"code": "post", "name": "Post", "rate": rate}
    voucher = {"name": "Spring", "kind": "percent", "percent": "10", "code": "SPRING"}
    (await http.post("/shipping-methods", json=method)).raise_for_status()
    limits = {"usage_limit": 9, "per_customer_limit": 9}
    (await http.post("/promotions", json=voucher | limits)).raise_for_status()


def key(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


async def cost(http: httpx2.AsyncClient, method: str, path: str, **options: Any) -> tuple[int, Any]:
    before = STATEMENTS._value.get()
    answer = await http.request(method, path, **options)
    assert answer.is_success, answer.text
    return int(STATEMENTS._value.get() - before), answer.json()


def count_context_calls() -> Counter[str]:
    """Return the number of calls of each contract method, including failed calls."""
    counted: Counter[str] = Counter()
    for sample in next(iter(RPC_CLIENT_CALLS.collect())).samples:
        if sample.name.endswith("_total"):
            counted[f"{sample.labels['target']}.{sample.labels['method']}"] += int(sample.value)
    return counted


@asynccontextmanager
async def background_work(app: Gateway) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(worker.run())
        for worker in build_event_workers(app.container, app.settings)
    ]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def wait_until_handled(handler: str, before: float) -> None:
    """Wait until the handler has processed more than `before` events.

    Raises TimeoutError after 60 s.
    """
    async with asyncio.timeout(60):
        while EVENTS_HANDLED.labels(handler, "done")._value.get() <= before:
            await asyncio.sleep(0.01)


async def test_read_takes_one_statement(http: httpx2.AsyncClient, product_id: str) -> None:
    assert (await cost(http, "GET", f"/products/{product_id}"))[0] == 1
    assert (await cost(http, "GET", "/products?limit=20"))[0] == 1
    assert (await cost(http, "GET", "/users/me"))[0] == 1


async def test_page_with_facets_takes_two_statements(
    http: httpx2.AsyncClient, product_id: str
) -> None:
    cost_of_facets, page = await cost(http, "GET", "/products?facets=category,options,tag")

    assert cost_of_facets <= 2
    assert [item["product_id"] for item in page["items"]] == [product_id]
    assert page["facets"] is not None


async def test_cached_reads_and_304_take_no_statement(
    http: httpx2.AsyncClient, product_id: str, database_url: str, tmp_path: Any
) -> None:
    caching = create_app(read_settings(database_url=database_url, data_dir=tmp_path, **ADMIN))
    # a frozen clock, so that no entry expires on a slow machine
    inventory_of(caching.container).cache()._clock = lambda: 0.0
    transport = httpx2.ASGITransport(caching)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
        for path in (f"/products/{product_id}", "/products?limit=20"):
            tag = (await client.get(path)).headers["etag"]
            before = STATEMENTS._value.get()

            again = await client.get(path)
            unchanged = await client.get(path, headers={"If-None-Match": tag})

            assert (again.status_code, unchanged.status_code) == (200, 304)
            assert STATEMENTS._value.get() == before
    await caching.container.close()


async def test_placing_order_takes_at_most_eight_statements(
    http: httpx2.AsyncClient, product_id: str
) -> None:
    body = {"product_id": product_id, "quantity": 2, "shipping_address": "Market 1"}

    statements, order = await cost(http, "POST", "/orders", json=body, headers=key("order"))
    paying = await cost(
        http,
        "POST",
        f"/payments/{order['payment']['payment_id']}/confirm",
        json={"payment_method": "sandbox_ok"},
        headers=key("pay"),
    )

    assert statements <= 8
    assert paying[0] <= 5
    assert (await cost(http, "GET", f"/orders/{order['order_id']}/status"))[0] == 1


async def test_order_makes_four_context_calls_and_one_after_payment(
    app: Gateway, http: httpx2.AsyncClient, product_id: str
) -> None:
    """An order needs few context calls, because each may be a network round trip."""
    body = {"product_id": product_id, "quantity": 2, "shipping_address": "Market 1"}
    last_step = "orders.on_order_paid"
    committed = EVENTS_HANDLED.labels(last_step, "done")._value.get()
    before = count_context_calls()

    _, order = await cost(http, "POST", "/orders", json=body, headers=key("order"))
    placing = count_context_calls() - before
    path, method = f"/payments/{order['payment']['payment_id']}/confirm", "sandbox_ok"
    await cost(http, "POST", path, json={"payment_method": method}, headers=key("pay"))
    async with background_work(app):
        await wait_until_handled(last_step, committed)

    assert placing == {
        "users.get_active_customer": 1,
        "inventory.reserve": 1,
        "payments.open": 1,
        "payments.activate": 1,
    }
    assert count_context_calls() - before == {**placing, "inventory.commit": 1}


async def test_checkout_of_cart_with_voucher_and_shipping_makes_four_context_calls(
    http: httpx2.AsyncClient, product_id: str
) -> None:
    await configure_voucher_and_shipping(http)
    costs: dict[str, tuple[int, Counter[str]]] = {}

    async def step(name: str, method: str, path: str, **options: Any) -> Any:
        before = count_context_calls()
        statements, answer = await cost(http, method, path, **options)
        costs[name] = (statements, count_context_calls() - before)
        return answer

    other_id = await create_product(http, "CUP")
    cart = f"/carts/{(await step('create', 'POST', '/carts', json={}))['cart_id']}"
    await step("line", "PUT", f"{cart}/lines/{product_id}", json={"quantity": 2})
    await step("second line", "PUT", f"{cart}/lines/{other_id}", json={"quantity": 1})
    await step("address", "PUT", cart, json={"shipping_address": BERLIN})
    await step("voucher", "PUT", f"{cart}/voucher", json={"code": "SPRING"})
    order = await step("checkout", "POST", f"{cart}/checkout", json={}, headers=key("order"))

    assert (order["discount"]["amount"], order["shipping"]["amount"]) == (600, 490)
    assert costs["checkout"][1] == {
        "users.get_active_customer": 1,
        "inventory.reserve": 1,
        "payments.open": 1,
        "payments.activate": 1,
    }
    assert not costs["create"][1]
    for name in ("line", "second line", "address", "voucher"):
        assert costs[name][1] == {"inventory.list_offers": 1}
    for name, budget in CART_BUDGETS.items():
        assert costs[name][0] <= budget, (name, costs[name])


async def test_product_page_takes_one_statement(http: httpx2.AsyncClient, product_id: str) -> None:
    for number in range(3):
        body = {"sku": f"CUP-{number}", "name": "Cup", "price": {"amount": 1, "currency": "EUR"}}
        statements, made = await cost(http, "POST", "/products", json=body | {"family": "cups"})
        # only the first product creates the family
        assert (statements <= (9 if number == 0 else 5), made["family"]) == (True, "cups")

    assert (await cost(http, "GET", "/families/cups"))[0] == 1
    for path in ("/families", "/families?q=cup&sort=price", "/families?tag=x&in_stock=true"):
        assert (await cost(http, "GET", path))[0] == 1, path
    facets = "category,tag,options,attributes"
    for path in (f"/families?facets={facets}", f"/families?q=cup&facets={facets}&sort=price"):
        # one for the page and one for the facets
        assert (await cost(http, "GET", path))[0] <= 2, path
    moved = await http.get(f"/families/{product_id}")
    assert (await cost(http, "GET", moved.headers["location"]))[0] == 1
