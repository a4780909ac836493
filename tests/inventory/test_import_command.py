"""Test that the import command ends after each outcome of the import."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from markethall.cli.import_command import ImportFile, ImportResult, run_import
from markethall.inventory.imports.contract import ImportStatus
from markethall.local.demo.generated_catalogue import known_skus
from markethall.shared.composition.memory import MemoryDatabase
from markethall.shared.kernel.errors import Unavailable, ValidationFailed
from tests.inventory.conftest import STAFF, InventoryApp, build_inventory_app

TIMEOUT_SECONDS = 30


@pytest.fixture
def inventory_app() -> InventoryApp:
    return build_inventory_app("memory")


@pytest.fixture
def import_file(tmp_path: Path) -> ImportFile:
    path = tmp_path / "teas.csv"
    path.write_text("sku,name,price\nT-1,Sencha,1\nT-2,Gyokuro,2\n")
    return ImportFile(path, 1000)


async def run(inventory_app: InventoryApp, import_file: ImportFile, work: Any) -> ImportResult:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        return await run_import(
            import_file, inventory_app.container.imports(), work, STAFF, lambda _: None
        )


async def test_import_command_fails_when_database_is_unavailable(
    inventory_app: InventoryApp, import_file: ImportFile
) -> None:
    async def work(_: UUID) -> None:
        raise Unavailable(dependency="postgres")

    with pytest.raises(Unavailable):
        await run(inventory_app, import_file, work)


async def test_import_command_retries_after_other_worker_died(
    inventory_app: InventoryApp, import_file: ImportFile
) -> None:
    attempts = 0

    async def work(import_id: UUID) -> Any:
        nonlocal attempts
        attempts += 1
        return (
            await inventory_app.container.import_worker().process_next(import_id)
            if attempts > 1
            else None
        )

    result = await run(inventory_app, import_file, work)

    assert (result.final_state.status, result.final_state.rows.created) == (ImportStatus.DONE, 2)


async def test_interrupt_stops_without_waiting_for_completion(
    inventory_app: InventoryApp, import_file: ImportFile
) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def work(_: UUID) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    command = asyncio.create_task(run(inventory_app, import_file, work))
    await started.wait()
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command

    assert ended.is_set()


async def test_oversized_file_is_rejected_and_deleted(
    inventory_app: InventoryApp, import_file: ImportFile
) -> None:
    import_file.path.write_text("x" * 1001)

    with pytest.raises(ValidationFailed) as raised:
        await run(inventory_app, import_file, inventory_app.container.import_worker().process_next)

    assert "more than 1000 bytes" in raised.value.detail
    database = inventory_app.container.database()
    assert isinstance(database, MemoryDatabase)
    assert not database.tables.uploads.where(lambda _: True)


async def test_known_skus_include_large_catalogue(
    inventory_app: InventoryApp, import_file: ImportFile
) -> None:
    rows = "".join(f'T-{n},"Name,\n{n}",1\n' for n in range(1200))
    import_file.path.write_text(f"sku,name,price\n{rows}")
    large_file = ImportFile(import_file.path, 1_000_000)
    await run(inventory_app, large_file, inventory_app.container.import_worker().process_next)

    known = await known_skus(inventory_app.container.imports(), STAFF)

    assert known == {f"T-{n}" for n in range(1200)}
