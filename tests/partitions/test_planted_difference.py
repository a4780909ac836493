"""A hall that is nearly right: the log sees it."""

from pathlib import Path
from typing import Any

from dependency_injector import providers

from markethall.container import Container
from markethall.inventory.contract import Inventory, OutOfStock, ReservationView, Reserve
from markethall.shared.kernel.call_context import CallContext
from tests.partitions.in_process import open_partitioned_app, unchanged
from tests.partitions.log import Log, compared
from tests.partitions.partitions import PARTITIONS, TOGETHER
from tests.partitions.scenario.catalogue import shelves
from tests.partitions.scenario.orders import refused
from tests.partitions.scenario.users import people
from tests.partitions.scenario_runner import ScenarioRunner
from tests.partitions.server_inspector import MemoryInspector


class DetailDroppingInventory:
    """Inventory whose refusal has lost its details on the way."""

    def __init__(self, inner: Inventory) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def reserve(self, ctx: CallContext, command: Reserve) -> ReservationView:
        try:
            return await self._inner.reserve(ctx, command)
        except OutOfStock:
            raise OutOfStock(lines=[]) from None


def install_fault(container: Container) -> None:
    container.inventory.override(providers.Object(DetailDroppingInventory(container.inventory())))


async def short_log(folder: Path, *, forgetful: bool) -> Log:
    spoil = install_fault if forgetful else unchanged
    async with open_partitioned_app(
        PARTITIONS[TOGETHER], folder, spoil, storage="memory"
    ) as partitioned_app:
        inspector = MemoryInspector(partitioned_app.containers["orders"])
        runner = ScenarioRunner(partitioned_app.server, partitioned_app.http, inspector)
        await runner.sign_in_admin()
        await people(runner)
        await refused(runner, await shelves(runner))
        await runner.close()
    return runner.log


async def test_missing_error_detail_is_the_only_difference(tmp_path: Path) -> None:
    honest, again = [await short_log(tmp_path, forgetful=False) for _ in range(2)]
    drifted = await short_log(tmp_path, forgetful=True)

    assert len(honest.lines) > 1000
    assert compared(honest.lines, again.lines).differences == []
    lost = set(honest.lines) - set(drifted.lines)
    assert lost
    assert all("/details/lines/" in line for line in lost)
    assert compared(honest.lines, drifted.lines).differences
