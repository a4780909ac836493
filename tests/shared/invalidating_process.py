"""A process that invalidates one cache key and ends, without receiving any invalidations.

Usage: python -m tests.shared.invalidating_process BUS_URL DATABASE_URL NAMESPACE KEY.
"""

import asyncio
import sys

from markethall.shared.cache import open_cache
from tests.shared.cache_fixtures import open_connections


async def invalidate(bus_url: str, database_url: str, namespace: str, key: str) -> None:
    connections = open_connections(bus_url, database_url)
    cache = open_cache("on", *connections)
    cache.invalidate(namespace, [key])
    await cache.close()
    await connections.close()


if __name__ == "__main__":
    asyncio.run(invalidate(*sys.argv[1:]))
