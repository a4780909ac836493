"""The HTTP API of imports and exports."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import pytest

from markethall.app import Gateway, create_app
from markethall.shared.composition.memory import MemoryDatabase
from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.scopes import CATALOGUE_WRITE, STOCK_WRITE
from tests.containers import inventory_of, users_of
from tests.inventory.conftest import STAFF
from tests.test_app import ADMIN, client_of, memory_settings

FILE = b"sku,name,price,on_hand\nA-1,One,1.00,3\nA-2,Two,bad,\n"
CSV = {"Content-Type": "text/csv; charset=utf-8"}


@pytest.fixture
def body_timeout() -> float:
    return 30  # long enough for a slow test machine


@pytest.fixture
def app(body_timeout: float) -> Gateway:
    return create_app(memory_settings(max_import_bytes=100_000, body_timeout=body_timeout))


@pytest.fixture
async def http(app: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app) as client:
        form = {"username": ADMIN["admin_email"], "password": ADMIN["admin_password"]}
        token = (await client.post("/token", data=form)).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


async def wait_for_end(http: httpx2.AsyncClient, path: str) -> dict[str, Any]:
    """Read the event stream to its end. Return the import in the last event."""
    response = await http.get(f"{path}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    last = response.text.strip().split("\n\n")[-1]
    assert last.startswith("event: progress\ndata: ")
    return dict(json.loads(last.partition("data: ")[2]))


async def test_import_is_accepted_and_streams_progress(http: httpx2.AsyncClient) -> None:
    response = await http.post("/imports", content=FILE, headers=CSV)

    assert response.status_code == 202
    path = response.headers["location"]
    assert path == f"/imports/{response.json()['import_id']}"
    final = await wait_for_end(http, path)
    assert (final["status"], final["rows"]["created"], final["rows"]["failed"]) == ("done", 1, 1)
    assert (await http.get(path)).json() == final
    errors = (await http.get(f"{path}/errors")).json()["items"]
    assert errors == [
        {
            "line": 3,
            "field": "price",
            "code": "invalid",
            "message": "must be a decimal number such as 19.99",
        }
    ]
    assert (await http.get("/products/by-sku/A-1")).json()["available"] == 3


async def test_idempotency_key_creates_one_import(http: httpx2.AsyncClient) -> None:
    headers = CSV | {"Idempotency-Key": "spring"}

    first = await http.post("/imports", content=FILE, headers=headers)
    second = await http.post("/imports", content=FILE, headers=headers)
    other = await http.post("/imports", content=FILE + b"A-3,Three,3,\n", headers=headers)
    dry_run = await http.post("/imports?dry_run=true", content=FILE, headers=headers)

    assert second.json()["import_id"] == first.json()["import_id"]
    assert second.headers["idempotency-replayed"] == "true"
    assert [other.status_code, dry_run.status_code] == [422, 422]
    assert other.json()["code"] == "idempotency.payload_mismatch"


async def test_oversized_file_is_rejected(http: httpx2.AsyncClient, app: Gateway) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(101):
            yield b"x" * 1000

    with_length = await http.post("/imports", content=b"x" * 100_001, headers=CSV)
    chunked = await http.post("/imports", content=chunks(), headers=CSV)
    other_route = await http.post("/products", json={"name": "x" * 2_000_000})

    assert [with_length.status_code, chunked.status_code, other_route.status_code] == [
        413,
        413,
        413,
    ]
    assert with_length.json()["details"] == chunked.json()["details"] == {"limit": 100_000}
    database = inventory_of(app.container).database()
    assert isinstance(database, MemoryDatabase)
    tables = database.tables
    assert len(tables.uploads) == len(tables.upload_parts) == 0


@pytest.mark.parametrize("body_timeout", [0.2])
async def test_slow_upload_times_out(http: httpx2.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"sku"
        await asyncio.sleep(30)

    response = await http.post("/imports", content=chunks(), headers=CSV)

    assert response.status_code == 408
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize(
    "media_type", ["application/json", "text/plain", "text/csv; charset=latin-1", "", "text/csv,x"]
)
async def test_other_media_types_are_rejected(http: httpx2.AsyncClient, media_type: str) -> None:
    response = await http.post("/imports", content=FILE, headers={"Content-Type": media_type})

    assert response.status_code == 415
    assert response.json()["details"]["supported"] == ["application/x-ndjson", "text/csv"]


async def test_import_and_export_require_staff(http: httpx2.AsyncClient) -> None:
    path = (await http.post("/imports", content=FILE, headers=CSV)).headers["location"]
    del http.headers["Authorization"]

    responses = [
        await http.post("/imports", content=FILE, headers=CSV),
        await http.get(path),
        await http.get(f"{path}/events"),
        await http.get(f"{path}/errors"),
        await http.post(f"{path}/retry"),
        await http.get("/exports/products.csv"),
    ]

    assert [response.status_code for response in responses] == [401] * 6


@pytest.mark.parametrize(
    ("granted", "missing"), [(CATALOGUE_WRITE, STOCK_WRITE), (STOCK_WRITE, CATALOGUE_WRITE)]
)
async def test_import_requires_catalogue_and_stock_scopes(
    http: httpx2.AsyncClient, app: Gateway, granted: str, missing: str
) -> None:
    path = (await http.post("/imports", content=FILE, headers=CSV)).headers["location"]
    user = (
        await users_of(app.container)
        .accounts()
        .create_staff("clerk@example.com", "admin", "a clerk's long password")
    )
    clerk = Actor(user_id=user.user_id, scopes=frozenset({granted}))
    headers = {"Authorization": f"Bearer {app.container.process.access_token_signer().sign(clerk)}"}

    responses = [
        await http.post("/imports", content=FILE, headers=CSV | headers),
        await http.post(f"{path}/retry", headers=headers),
    ]

    assert [response.status_code for response in responses] == [403, 403]
    assert [response.json()["details"] for response in responses] == [{"scope": missing}] * 2


async def test_unknown_import_is_not_found(http: httpx2.AsyncClient) -> None:
    path = "/imports/0199c0de-0000-7000-8000-00000000c0fe"

    responses = [await http.get(path + end) for end in ("", "/events", "/errors")]
    responses.append(await http.post(f"{path}/retry"))

    assert [response.json()["code"] for response in responses] == ["inventory.import_not_found"] * 4


async def test_only_failed_import_can_be_retried(http: httpx2.AsyncClient) -> None:
    failed = (await http.post("/imports", content=b"nonsense", headers=CSV)).headers["location"]
    done = (await http.post("/imports", content=FILE, headers=CSV)).headers["location"]
    await wait_for_end(http, failed)
    await wait_for_end(http, done)

    again = await http.post(f"{failed}/retry")
    rejected = await http.post(f"{done}/retry")

    assert (again.status_code, again.headers["location"]) == (202, failed)
    assert (rejected.status_code, rejected.json()["details"]) == (409, {"status": "done"})
    assert (await wait_for_end(http, failed))["failure"]["code"] == "header"


async def test_event_stream_ends_at_shutdown(http: httpx2.AsyncClient, app: Gateway) -> None:
    app.readiness.draining = True
    path = (await http.post("/imports", content=FILE, headers=CSV)).headers["location"]

    response = await http.get(f"{path}/events")

    assert (response.status_code, response.text) == (200, "")


async def test_event_stream_count_is_limited(http: httpx2.AsyncClient, app: Gateway) -> None:
    path = (await http.post("/imports", content=FILE, headers=CSV)).headers["location"]
    imports = inventory_of(app.container).imports()
    import_id = UUID(path.rpartition("/")[2])
    streams = [await imports.watch_import(STAFF, import_id) for _ in range(32)]

    response = await http.get(f"{path}/events")

    assert (len(streams), response.status_code) == (32, 503)
    assert response.headers["retry-after"] == "10"


async def test_export_is_a_file_download(http: httpx2.AsyncClient) -> None:
    path = (await http.post("/imports", content=FILE, headers=CSV)).headers["location"]
    await wait_for_end(http, path)

    response = await http.get("/exports/products.csv")

    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert "products.csv" in response.headers["content-disposition"]
    header, row = response.text.split("\r\n")[:2]
    assert header.startswith("sku,name,")
    assert row.startswith("A-1,One,,1.00,EUR,")


async def test_families_are_exported_and_imported_again(http: httpx2.AsyncClient) -> None:
    file = b"label,slug,name\nCaps,caps,All caps\n"
    first = (await http.post("/imports", content=file, headers=CSV)).headers["location"]
    await wait_for_end(http, first)

    export = await http.get("/exports/families.csv")
    again = (await http.post("/imports", content=export.content, headers=CSV)).headers["location"]

    assert "families.csv" in export.headers["content-disposition"]
    assert export.text.split("\r\n")[1].startswith("Caps,caps,All caps,")
    end = await wait_for_end(http, again)
    assert (end["format"], end["rows"]["read"], end["rows"]["families_updated"]) == (
        "families",
        1,
        0,
    )


async def test_trailing_slash_keeps_upload_body(
    http: httpx2.AsyncClient,
) -> None:
    response = await http.post("/imports/", content=FILE, headers=CSV, follow_redirects=True)

    assert response.status_code == 202
