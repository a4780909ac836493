"""Test that members of a failed import are deleted, and that progress streams are limited."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.imports.contract import ImportStatus, ImportView
from markethall.shared.kernel.errors import Overloaded
from markethall.shared.kernel.ids import new_id
from tests.inventory.conftest import STAFF, build_inventory_app
from tests.inventory.import_client import ImportClient

MAX_PROGRESS_STREAMS = 32


@pytest.fixture(params=["memory", "sql"])
def import_client(request: pytest.FixtureRequest) -> ImportClient:
    if request.param == "memory":
        return ImportClient(build_inventory_app("memory"))
    return ImportClient(build_inventory_app("sql", request.getfixturevalue("postgres")))


async def _missing_products(import_client: ImportClient, state: ImportView) -> list[Product]:
    """Return the products that the members of the import do not include."""
    database = import_client.inventory_app.container.persistence().database
    async with database.transaction() as store:
        return list(await store.list_missing_products_for_update(state.import_id))


async def test_members_are_deleted_with_their_failed_import(import_client: ImportClient) -> None:
    app = import_client.inventory_app
    await app.product("CAP-S", family="cap")
    failed = await import_client.import_to_end("no header", missing="archive")
    async with app.container.persistence().database.transaction() as store:
        await store.add_import_members(failed.import_id, {new_id(): "cap"})
    kept = await _missing_products(import_client, failed)

    app.clock.advance(days=91)
    await app.run_periodic_jobs()

    assert failed.status == ImportStatus.FAILED
    assert [product.sku for product in kept] == ["CAP-S"]
    assert await _missing_products(import_client, failed) == []


async def _open_stream(
    import_client: ImportClient, state: ImportView
) -> AsyncIterator[ImportView | None] | None:
    """Open a progress stream without reading from it. Return None if there are too many."""
    try:
        return await import_client.imports.watch_import(STAFF, state.import_id)
    except Overloaded:
        return None


async def test_streams_opened_at_once_are_limited(import_client: ImportClient) -> None:
    done = await import_client.import_to_end("sku,name,price\nA-1,One,1\n")

    opened = await asyncio.gather(
        *(_open_stream(import_client, done) for _ in range(MAX_PROGRESS_STREAMS + 8))
    )

    assert sum(stream is not None for stream in opened) == MAX_PROGRESS_STREAMS
    for stream in opened:
        if stream is not None:
            assert [view async for view in stream] == [done]
    assert await _open_stream(import_client, done) is not None
