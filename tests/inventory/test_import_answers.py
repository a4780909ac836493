"""The database has done what it was asked, and its answer is lost: the same in both."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from dependency_injector import providers

from markethall.inventory.contract import ImportStatus
from markethall.inventory.ports import Database, Shelf, Store
from markethall.shared.errors import Unavailable
from markethall.shared.pages import PageQuery
from tests.inventory.carrier import Carrier, counts
from tests.inventory.conftest import STAFF, House, build


class Deaf:
    """A database: the answer to each of some commits, counted from now, is lost."""

    def __init__(self, database: Database, lost: set[int]) -> None:
        self._database = database
        self._lost = lost
        self._commits = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Store]:
        async with self._database.transaction() as store:
            yield store
        self._commits += 1
        if self._commits in self._lost:
            raise Unavailable(dependency="postgres")

    def reading(self) -> AbstractAsyncContextManager[Shelf]:
        return self._database.reading()


@pytest.fixture(params=["memory", "sql"])
def house(request: pytest.FixtureRequest) -> House:
    if request.param == "memory":
        return build("memory")
    return build("sql", request.getfixturevalue("postgres"))


# the first is the one that takes the import
@pytest.mark.parametrize("lost", [{2}, {3}, {4}, {2, 3, 4}])
async def test_a_batch_of_which_the_answer_is_lost_is_applied_once(
    house: House, lost: set[int]
) -> None:
    carrier = Carrier(house)
    product = await house.product("L-7", stock=1)
    rows = "".join(f"L-{n},Name,1,5\n" if n % 100 else f"L-{n},,1,5\n" for n in range(2500))
    begun = await carrier.start(f"sku,name,price,on_hand\n{rows}".encode())
    database: Any = Deaf(house.container.database(), lost)
    house.container.importer.reset()
    with house.container.database.override(providers.Object(database)):
        importer = house.container.importer()

    await importer.work(begun.import_id)

    done = await carrier.imports.imported(STAFF, begun.import_id)
    assert done.status == ImportStatus.DONE
    assert counts(done) == (2500, 2474, 1, 0, 25)
    page = await house.stockroom.movements(STAFF, product.product_id, PageQuery())
    assert [movement.delta for movement in page.items] == [4, 1]
