"""What nobody pays for ends by itself, wherever its parts live: the functions of the suite.

An ordinary run tries the partition with each context alone, `make test-topologies` all of them.
"""

import os
from collections.abc import AsyncIterator
from inspect import signature

import pytest

from tests.e2e import test_expiry
from tests.e2e.servers import ADMIN
from tests.e2e.shop import Shop
from tests.partitions.partitions import APART, PARTITIONS
from tests.partitions.servers import TestResources, on_one_database

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"


@pytest.fixture(scope="module", params=PARTITIONS if FULL else [APART])
async def short_ttl_shop(
    request: pytest.FixtureRequest, resources: TestResources
) -> AsyncIterator[Shop]:
    """A shop that holds goods for some seconds."""
    async with on_one_database(
        resources, request.param, reservation_ttl_seconds=test_expiry.HOLD
    ) as partitioned_app:
        shop = Shop(partitioned_app.server, partitioned_app.http)
        await shop.sign_in_admin(*ADMIN)
        yield shop


# those that ask for this shop; the others kill a process
globals().update(
    {
        name: test
        for name, test in vars(test_expiry).items()
        if name.startswith("test_") and "short_ttl_shop" in signature(test).parameters
    }
)
