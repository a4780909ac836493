"""A hall that is nearly right: the log sees it."""

from pathlib import Path
from typing import Any

from dependency_injector import providers

from markethall.container import Container
from markethall.inventory.contract import Inventory, OutOfStock, Reservation, Reserve
from markethall.shared.call import Call
from markethall.topology import Context
from tests.partitions.in_process import as_it_is, parted_hall
from tests.partitions.inside import MemoryInside
from tests.partitions.log import Log, compared
from tests.partitions.player import Player
from tests.partitions.sets import PARTITIONS, TOGETHER
from tests.partitions.story.orders import refused
from tests.partitions.story.people import people
from tests.partitions.story.shelves import shelves


class Forgetful:
    """Inventory whose refusal has lost its details on the way."""

    def __init__(self, inner: Inventory) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def reserve(self, call: Call, command: Reserve) -> Reservation:
        try:
            return await self._inner.reserve(call, command)
        except OutOfStock:
            raise OutOfStock(lines=[]) from None


def plant(container: Container) -> None:
    container.inventory.override(providers.Object(Forgetful(container.inventory())))


async def short_log(folder: Path, *, forgetful: bool) -> Log:
    spoil = plant if forgetful else as_it_is
    async with parted_hall(PARTITIONS[TOGETHER], folder, spoil, storage="memory") as parted:
        inside = MemoryInside(parted.containers[Context.ORDERS])
        player = Player(parted.hall, parted.http, inside)
        await player.sign_in_admin()
        await people(player)
        await refused(player, await shelves(player))
        await player.close()
    return player.log


async def test_a_lost_detail_is_seen_and_nothing_else(tmp_path: Path) -> None:
    honest, again = [await short_log(tmp_path, forgetful=False) for _ in range(2)]
    drifted = await short_log(tmp_path, forgetful=True)

    assert len(honest.lines) > 1000
    assert compared(honest.lines, again.lines).differences == []
    lost = set(honest.lines) - set(drifted.lines)
    assert lost
    assert all("/details/lines/" in line for line in lost)
    assert compared(honest.lines, drifted.lines).differences
