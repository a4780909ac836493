"""A file from the command line: it ends, whatever becomes of the work on it."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from markethall.inventory.contract import ImportStatus
from markethall.loading import Load, Loaded, bring
from markethall.local.demo import known_skus
from markethall.shared.errors import Invalid, Unavailable
from tests.inventory.conftest import STAFF, House, build

PATIENCE = 30


@pytest.fixture
def house() -> House:
    return build("memory")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    path = tmp_path / "teas.csv"
    path.write_text("sku,name,price\nT-1,Sencha,1\nT-2,Gyokuro,2\n")
    return Load(path, 1000)


async def brought(house: House, load: Load, work: Any) -> Loaded:
    async with asyncio.timeout(PATIENCE):
        return await bring(load, house.container.imports(), work, STAFF, lambda _: None)


async def test_it_ends_when_the_database_is_away(house: House, load: Load) -> None:
    async def work(_: UUID) -> None:
        raise Unavailable(dependency="postgres")

    with pytest.raises(Unavailable):
        await brought(house, load, work)


async def test_it_is_taken_again_when_whoever_was_faster_has_died(house: House, load: Load) -> None:
    turns = 0

    async def work(import_id: UUID) -> Any:
        nonlocal turns
        turns += 1
        return await house.container.importer().work(import_id) if turns > 1 else None

    loaded = await brought(house, load, work)

    assert (loaded.done.status, loaded.done.rows.created) == (ImportStatus.DONE, 2)


async def test_who_stops_it_does_not_wait_for_its_end(house: House, load: Load) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work(_: UUID) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    bringing = asyncio.create_task(brought(house, load, work))
    await begun.wait()
    bringing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bringing

    assert ended.is_set()


async def test_a_file_that_is_too_large_is_refused_and_forgotten(house: House, load: Load) -> None:
    load.path.write_text("x" * 1001)

    with pytest.raises(Invalid) as refused:
        await brought(house, load, house.container.importer().work)

    assert "more than 1000 bytes" in refused.value.detail
    assert not house.container.backend().database.tables.uploads.where(lambda _: True)


async def test_every_sku_of_a_large_shop_is_known(house: House, load: Load) -> None:
    rows = "".join(f'T-{n},"Name,\n{n}",1\n' for n in range(1200))
    load.path.write_text(f"sku,name,price\n{rows}")
    whole = Load(load.path, 1_000_000)
    await brought(house, whole, house.container.importer().work)

    known = await known_skus(house.container.imports(), STAFF)

    assert known == {f"T-{n}" for n in range(1200)}
