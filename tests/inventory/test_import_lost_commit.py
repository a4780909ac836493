"""Test that a batch is applied once, even if the response to its commit is lost."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from markethall.inventory.container import InventoryContainer
from markethall.inventory.imports.contract import ImportStatus
from markethall.inventory.imports.ports import ReadStore, Store
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.persistence.database import Database
from tests.inventory.conftest import STAFF, InventoryApp, build_inventory_app
from tests.inventory.import_client import ImportClient, counts


class LostCommitAnswers:
    """A database that applies every commit, but raises Unavailable after those in `lost`.

    `lost` contains the numbers of commits. The first commit has the number 1.
    """

    def __init__(self, database: Database[ReadStore, Store], lost: set[int]) -> None:
        self._database = database
        self._lost = lost
        self._commits = 0

    def transaction(self) -> AbstractAsyncContextManager[Store]:
        return self._lose_answer(self._database.transaction())

    def autocommit(self) -> AbstractAsyncContextManager[Store]:
        return self._lose_answer(self._database.autocommit())

    @asynccontextmanager
    async def _lose_answer(self, block: AbstractAsyncContextManager[Store]) -> AsyncIterator[Store]:
        async with block as store:
            yield store
        self._commits += 1
        if self._commits in self._lost:
            raise Unavailable(dependency="postgres")

    @property
    def write_count(self) -> int:
        return self._database.write_count

    def read_session(self) -> AbstractAsyncContextManager[ReadStore]:
        return self._database.read_session()


@pytest.fixture(params=["memory", "sql"])
def inventory_app(request: pytest.FixtureRequest) -> InventoryApp:
    if request.param == "memory":
        return build_inventory_app("memory")
    return build_inventory_app("sql", request.getfixturevalue("postgres"))


# commit 1 is never lost: it acquires the lease, and a worker does not begin without a lease
@pytest.mark.parametrize("lost", [{2}, {3}, {4}, {2, 3, 4}])
async def test_batch_with_lost_commit_response_is_applied_once(
    inventory_app: InventoryApp, lost: set[int]
) -> None:
    import_client = ImportClient(inventory_app)
    product = await inventory_app.product("L-7", stock=1)
    rows = "".join(f"L-{n},Name,1,5\n" if n % 100 else f"L-{n},,1,5\n" for n in range(2500))
    file = f"sku,name,price,on_hand\n{rows}".encode()
    started = await import_client.start(file, with_stock=True)
    database: Any = LostCommitAnswers(inventory_app.container.database(), lost)
    container = InventoryContainer(
        settings=inventory_app.container.settings(),
        tools=inventory_app.container.tools(),
        database=database,
    )
    worker = container.import_worker()

    await worker.process_next(started.import_id)

    done = await import_client.imports.get_import(STAFF, started.import_id)
    assert done.status == ImportStatus.DONE
    assert counts(done) == (2500, 2474, 1, 0, 25)
    page = await inventory_app.stockroom.list_movements(STAFF, product.product_id, PageQuery())
    assert [movement.delta for movement in page.items] == [4, 1]
