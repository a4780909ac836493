"""The server that the attacks run against. The connection to its database can be slow."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2

from tests.acidrain.last_byte import RawRequest, RawResponse, send_until_final
from tests.e2e.servers import ADMIN, running
from tests.e2e.shop import Shop, expect_status
from tests.inventory.race_setup import slow_connection_to
from tests.proxy import Mode

# high, because a customer of an attack sends many checkouts at once
_MAX_UNPAID_ORDERS: Final = "1000"


@dataclass(frozen=True)
class Target:
    shop: Shop

    @property
    def admin_token(self) -> str:
        return self.shop.admin.token

    async def send_together(self, requests: list[RawRequest]) -> list[RawResponse]:
        return await send_until_final(urlsplit(self.shop.server.url("/")).port or 0, requests)

    async def list_guest_tokens(self, count: int) -> list[str]:
        answers = await asyncio.gather(*(self.shop.post("/guests") for _ in range(count)))
        return [expect_status(answer, 201)["access_token"] for answer in answers]


# runs one round with this number of concurrent requests, and returns the violations
Attack = Callable[[Target, int], Awaitable[list[str]]]


@asynccontextmanager
async def open_target(
    database_url: str, folder: Path, delay: float, *arguments: str, program: str = "markethall"
) -> AsyncIterator[Target]:
    """Run `markethall serve`, or the command `serve` of another module.

    After the start, messages to and from its database take `delay` seconds each.
    """
    async with slow_connection_to(database_url, delay) as (url, proxy):
        environment = {
            "MARKETHALL_DATABASE_URL": url,
            "MARKETHALL_DATA_DIR": str(folder),
            "MARKETHALL_MAX_UNPAID_ORDERS_PER_CUSTOMER": _MAX_UNPAID_ORDERS,
        }
        serving = running(folder, environment, *arguments, program=(program,))
        # in a thread, because the proxy to the database runs in this event loop
        server = await asyncio.to_thread(serving.__enter__)
        try:
            async with httpx2.AsyncClient(timeout=120) as http:
                shop = Shop(server, http)
                await shop.sign_in_admin(*ADMIN)
                if delay:
                    await proxy.switch(Mode.DELAY)
                yield Target(shop)
        finally:
            await asyncio.to_thread(serving.__exit__, None, None, None)
