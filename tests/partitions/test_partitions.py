"""The very functions of the end-to-end suite, on every partition in one process."""

from collections.abc import AsyncIterator

import pytest

from tests.e2e import test_flow
from tests.e2e.halls import ADMIN
from tests.e2e.shop import Shop
from tests.partitions.halls import Ground, on_one_database
from tests.partitions.in_process import Parted
from tests.partitions.sets import PARTITIONS


# not for the whole session: its background work would count into the budgets of other tests
@pytest.fixture(scope="module", params=PARTITIONS)
async def parted(request: pytest.FixtureRequest, ground: Ground) -> AsyncIterator[Parted]:
    async with on_one_database(ground, request.param) as parted:
        yield parted


@pytest.fixture
async def shop(parted: Parted) -> Shop:
    shop = Shop(parted.hall, parted.http)
    await shop.sign_in_admin(*ADMIN)
    return shop


# whatever is written there runs here: the fixtures of this module stand in for those of that one
globals().update({name: test for name, test in vars(test_flow).items() if name.startswith("test_")})
