"""Run the flow tests of the end-to-end suite on partitions in one process.

An ordinary run uses one partition of each shape, that is of each list of block sizes, on which
tests/e2e/test_flow.py does not run with real processes; `make test-topologies` uses all. The
scenario of test_same_log always runs on all partitions, on some of them as processes.
"""

import os
from collections.abc import AsyncIterator

import pytest

from tests.e2e import test_flow
from tests.e2e.servers import ADMIN
from tests.e2e.shop import Shop
from tests.partitions.in_process import PartitionedApp
from tests.partitions.partitions import PARTITIONS, one_of_each_other_shape
from tests.partitions.servers import PartitionResources, on_one_database

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"


# The scope is `module`, so that the application is closed before tests of other modules run. Some
# of these count SQL statements, and would also count those of its background work.
@pytest.fixture(scope="module", params=PARTITIONS if FULL else one_of_each_other_shape())
async def partitioned_app(
    request: pytest.FixtureRequest, resources: PartitionResources
) -> AsyncIterator[PartitionedApp]:
    async with on_one_database(resources, request.param) as partitioned_app:
        yield partitioned_app


@pytest.fixture
async def shop(partitioned_app: PartitionedApp) -> Shop:
    shop = Shop(partitioned_app.server, partitioned_app.http)
    await shop.sign_in_admin(*ADMIN)
    return shop


# let pytest collect the tests of the other module here, with the fixtures of this module
globals().update({name: test for name, test in vars(test_flow).items() if name.startswith("test_")})
