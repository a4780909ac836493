"""Test that the log comparison finds a bug that is planted on purpose."""

from pathlib import Path
from typing import Any

from markethall.container import ApplicationContainer
from markethall.inventory.contract import Inventory, OutOfStock, ReservationView, Reserve
from markethall.shared.kernel.call_context import CallContext
from tests.partitions.in_process import open_partitioned_app
from tests.partitions.log import Log, compared
from tests.partitions.partitions import MONOLITH, PARTITIONS
from tests.partitions.scenario.catalogue import create_products
from tests.partitions.scenario.orders import rejected_orders
from tests.partitions.scenario.users import register_users
from tests.partitions.scenario_runner import ScenarioRunner
from tests.partitions.server_inspector import MemoryInspector


class DetailDroppingInventory:
    """A wrapper of inventory that removes the details of OutOfStock."""

    def __init__(self, inner: Inventory) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def reserve(self, ctx: CallContext, command: Reserve) -> ReservationView:
        try:
            return await self._inner.reserve(ctx, command)
        except OutOfStock:
            raise OutOfStock(lines=[]) from None


class FaultyContainer(ApplicationContainer):
    def internal_service(self, target: str, caller: str) -> Any:
        service = super().internal_service(target, caller)
        return DetailDroppingInventory(service) if target == "inventory" else service


async def short_log(folder: Path, *, with_fault: bool) -> Log:
    container_class = FaultyContainer if with_fault else ApplicationContainer
    async with open_partitioned_app(
        PARTITIONS[MONOLITH], folder, container_class, storage="memory"
    ) as partitioned_app:
        inspector = MemoryInspector(partitioned_app.containers["orders"])
        runner = ScenarioRunner(partitioned_app.server, partitioned_app.http, inspector)
        await runner.sign_in_admin()
        await register_users(runner)
        await rejected_orders(runner, await create_products(runner))
        await runner.close()
    return runner.log


async def test_missing_error_detail_is_the_only_difference(tmp_path: Path) -> None:
    first, again = [await short_log(tmp_path, with_fault=False) for _ in range(2)]
    faulty = await short_log(tmp_path, with_fault=True)

    assert len(first.lines) > 1000
    assert compared(first.lines, again.lines).differences == []
    missing = set(first.lines) - set(faulty.lines)
    assert missing
    assert all("/details/lines/" in line for line in missing)
    assert compared(first.lines, faulty.lines).differences
