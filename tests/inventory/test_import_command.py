"""A file from the command line: it ends, whatever becomes of the work on it."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from markethall.cli.import_command import ImportFile, ImportResult, run_import
from markethall.inventory.imports.contract import ImportStatus
from markethall.local.demo import known_skus
from markethall.shared.kernel.errors import Unavailable, ValidationFailed
from tests.inventory.conftest import STAFF, InventoryApp, build_inventory_app

PATIENCE = 30


@pytest.fixture
def inventory_app() -> InventoryApp:
    return build_inventory_app("memory")


@pytest.fixture
def load(tmp_path: Path) -> ImportFile:
    path = tmp_path / "teas.csv"
    path.write_text("sku,name,price\nT-1,Sencha,1\nT-2,Gyokuro,2\n")
    return ImportFile(path, 1000)


async def brought(inventory_app: InventoryApp, load: ImportFile, work: Any) -> ImportResult:
    async with asyncio.timeout(PATIENCE):
        return await run_import(load, inventory_app.container.imports, work, STAFF, lambda _: None)


async def test_import_command_fails_when_database_is_unavailable(
    inventory_app: InventoryApp, load: ImportFile
) -> None:
    async def work(_: UUID) -> None:
        raise Unavailable(dependency="postgres")

    with pytest.raises(Unavailable):
        await brought(inventory_app, load, work)


async def test_import_command_retries_after_other_worker_died(
    inventory_app: InventoryApp, load: ImportFile
) -> None:
    turns = 0

    async def work(import_id: UUID) -> Any:
        nonlocal turns
        turns += 1
        return (
            await inventory_app.container.import_worker.process_next(import_id)
            if turns > 1
            else None
        )

    loaded = await brought(inventory_app, load, work)

    assert (loaded.final_state.status, loaded.final_state.rows.created) == (ImportStatus.DONE, 2)


async def test_interrupt_stops_without_waiting_for_completion(
    inventory_app: InventoryApp, load: ImportFile
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work(_: UUID) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    bringing = asyncio.create_task(brought(inventory_app, load, work))
    await begun.wait()
    bringing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bringing

    assert ended.is_set()


async def test_oversized_file_is_rejected_and_deleted(
    inventory_app: InventoryApp, load: ImportFile
) -> None:
    load.path.write_text("x" * 1001)

    with pytest.raises(ValidationFailed) as refused:
        await brought(inventory_app, load, inventory_app.container.import_worker.process_next)

    assert "more than 1000 bytes" in refused.value.detail
    assert not inventory_app.container.persistence.database.tables.uploads.where(lambda _: True)


async def test_all_skus_of_a_large_catalogue_are_listed(
    inventory_app: InventoryApp, load: ImportFile
) -> None:
    rows = "".join(f'T-{n},"Name,\n{n}",1\n' for n in range(1200))
    load.path.write_text(f"sku,name,price\n{rows}")
    whole = ImportFile(load.path, 1_000_000)
    await brought(inventory_app, whole, inventory_app.container.import_worker.process_next)

    known = await known_skus(inventory_app.container.imports, STAFF)

    assert known == {f"T-{n}" for n in range(1200)}
