"""The HTTP API of warehouses, transfers and stocktakes."""

from typing import Any

import httpx2
import pytest

from markethall.inventory.stock.domain import MAIN_WAREHOUSE
from markethall.shared.kernel.ids import new_id
from tests.inventory.test_router import Client, assert_problem, client

__all__ = ["client"]

MAIN = str(MAIN_WAREHOUSE)


async def post(client: Client, path: str, body: dict[str, Any], key: str = "") -> httpx2.Response:
    headers = client.staff | {"idempotency-key": key or str(new_id())}
    return await client.http.post(path, json=body, headers=headers)


async def create_warehouse(client: Client, **fields: Any) -> dict[str, Any]:
    response = await post(client, "/warehouses", {"name": "Rotterdam"} | fields)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


async def test_warehouse_crud(client: Client) -> None:
    made = await create_warehouse(client, priority=5)
    path = f"/warehouses/{made['warehouse_id']}"

    read = await client.http.get(path, headers=client.staff)
    fresh = await client.http.get(path, headers=client.staff | {"if-none-match": '"v1"'})
    without_version = await client.http.patch(path, json={"name": "X"}, headers=client.staff)
    headers = client.staff | {"if-match": read.headers["etag"]}
    changed = await client.http.patch(path, json={"name": "Antwerp"}, headers=headers)
    stale = await client.http.patch(path, json={"name": "Ghent"}, headers=headers)
    deleted = await client.http.delete(path, headers=client.staff | {"if-match": '"v2"'})

    assert read.json() == made
    assert fresh.status_code == 304
    assert_problem(without_version, 428, "request.if_match_missing")
    assert changed.json() == made | {"name": "Antwerp", "version": 2}
    assert changed.headers["etag"] == '"v2"'
    assert_problem(stale, 412, "request.if_match_failed")
    assert deleted.status_code == 204
    assert_problem(
        await client.http.get(path, headers=client.staff), 404, "inventory.warehouse_not_found"
    )


async def test_created_etag_can_be_used_for_patch(client: Client) -> None:
    made = await post(client, "/warehouses", {"name": "Rotterdam"})
    headers = client.staff | {"if-match": made.headers["etag"]}

    changed = await client.http.patch(
        made.headers["location"], json={"priority": 2}, headers=headers
    )

    assert (made.headers["etag"], changed.headers["etag"]) == ('"v1"', '"v2"')


async def test_warehouses_require_staff(client: Client) -> None:
    await create_warehouse(client, priority=5)

    page = (await client.http.get("/warehouses?limit=1", headers=client.staff)).json()
    rest = await client.http.get(f"/warehouses?cursor={page['next_cursor']}", headers=client.staff)
    anonymous = await client.http.get("/warehouses")
    buyer = await client.http.get("/warehouses", headers=client.customer)

    assert [warehouse["name"] for warehouse in page["items"] + rest.json()["items"]] == [
        "Main",
        "Rotterdam",
    ]
    assert anonymous.status_code == 401
    assert buyer.status_code == 403


async def test_warehouse_fields_cannot_be_cleared(client: Client) -> None:
    path = f"/warehouses/{MAIN}"
    for body in ({"name": None}, {"priority": None}, {"active": None}, {"name": ""}, {"x": 1}):
        response = await client.http.patch(
            path, json=body, headers=client.staff | {"if-match": '"v1"'}
        )
        assert_problem(response, 422, "request.invalid")
    closed = await client.http.patch(
        path, json={"active": False}, headers=client.staff | {"if-match": '"v1"'}
    )
    assert_problem(closed, 409, "inventory.warehouse_in_use")


async def test_transfer_is_idempotent_by_key(client: Client) -> None:
    tea, other = await client.create(), await create_warehouse(client)
    await client.adjust(tea["product_id"], delta=10)
    body = {
        "product_id": tea["product_id"],
        "from_warehouse_id": MAIN,
        "to_warehouse_id": other["warehouse_id"],
        "quantity": 4,
    }

    first = await post(client, "/stock-transfers", body, "once")
    again = await post(client, "/stock-transfers", body, "once")
    without_key = await client.http.post("/stock-transfers", json=body, headers=client.staff)
    read = await client.http.get(first.headers["location"], headers=client.staff)
    stock = await client.http.get(f"/products/{tea['product_id']}/stock", headers=client.staff)

    assert first.status_code == 201
    assert first.json() == again.json() == read.json()
    assert_problem(without_key, 400, "idempotency.key_missing")
    assert [level["on_hand"] for level in stock.json()["warehouses"]] == [6, 4]
    assert_problem(
        await client.http.get(f"/stock-transfers/{new_id()}", headers=client.staff),
        404,
        "inventory.transfer_not_found",
    )


async def test_stocktake_is_idempotent_by_key(client: Client) -> None:
    await client.create()
    body = {"lines": [{"sku": "tea-1", "counted": 7}], "note": "yearly"}

    first = await post(client, "/stocktakes", body, "once")
    again = await post(client, "/stocktakes", body, "once")
    read = await client.http.get(first.headers["location"], headers=client.staff)

    assert first.status_code == 201
    assert first.json() == again.json() == read.json()
    assert (first.json()["note"], first.json()["lines"][0]["delta"]) == ("yearly", 7)
    assert_problem(
        await client.http.get(f"/stocktakes/{new_id()}", headers=client.staff),
        404,
        "inventory.stocktake_not_found",
    )


@pytest.mark.parametrize("lines", [[], [{"counted": 1}], [{"sku": "A", "counted": -1}], [{}] * 501])
async def test_stocktake_line_count_is_limited(client: Client, lines: list[Any]) -> None:
    assert_problem(await post(client, "/stocktakes", {"lines": lines}), 422, "request.invalid")


async def test_historical_stock_is_queried_by_time(client: Client) -> None:
    tea = await client.create()
    movement = (await client.adjust(tea["product_id"], delta=10)).json()
    path = f"/products/{tea['product_id']}/stock"

    async def at(time: str) -> httpx2.Response:
        return await client.http.get(path, params={"at": time}, headers=client.staff)

    before, then = await at("2020-01-01T00:00:00Z"), await at(movement["created_at"])

    assert (before.json()["on_hand"], then.json()["on_hand"]) == (0, 10)
    assert then.json()["warehouses"] == [{"warehouse_id": MAIN, "on_hand": 10}]
    for nonsense in ("", "x", "2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00"):
        assert_problem(await at(nonsense), 422, "request.invalid")


@pytest.mark.parametrize("at", ["1700000000", "-62135596801", "2026-11-21", "yesterday"])
async def test_time_requires_date_and_offset(client: Client, at: str) -> None:
    made = await client.create()
    path = f"/products/{made['product_id']}/stock"

    response = await client.http.get(path, params={"at": at}, headers=client.staff)

    assert_problem(response, 422, "request.invalid")
