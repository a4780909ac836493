"""Run the expiry tests of the end-to-end suite on partitions of the contexts into processes.

An ordinary run has one process per context; `make test-topologies` runs all partitions.
"""

import os
from collections.abc import AsyncIterator
from inspect import signature

import pytest

from tests.e2e import test_expiry
from tests.e2e.servers import ADMIN
from tests.e2e.shop import Shop
from tests.partitions.partitions import FULL_SPLIT, PARTITIONS
from tests.partitions.servers import PartitionResources, on_one_database

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"


@pytest.fixture(scope="module", params=PARTITIONS if FULL else [FULL_SPLIT])
async def short_ttl_shop(
    request: pytest.FixtureRequest, resources: PartitionResources
) -> AsyncIterator[Shop]:
    """A shop in which reservations expire after a few seconds."""
    async with on_one_database(
        resources, request.param, reservation_ttl_seconds=test_expiry.RESERVATION_TTL_SECONDS
    ) as partitioned_app:
        shop = Shop(partitioned_app.server, partitioned_app.http)
        await shop.sign_in_admin(*ADMIN)
        yield shop


# Let pytest collect tests of the other module here, with the fixture of this module. Tests that do
# not use the fixture are left out: they kill a server process, but here the servers run in the
# process of pytest.
globals().update(
    {
        name: test
        for name, test in vars(test_expiry).items()
        if name.startswith("test_") and "short_ttl_shop" in signature(test).parameters
    }
)
