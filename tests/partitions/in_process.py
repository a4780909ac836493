"""A partition of the hall in one process: an application per block, joined by ASGI alone.

Nothing but bytes goes from one to the other. Each request runs in a task with an empty context, so
that no ambient state of the caller helps the callee; and it runs to its end, whoever gives up
waiting, as it would elsewhere.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context as Ambience
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from dependency_injector import providers
from starlette.types import ASGIApp

from markethall.app import create_app
from markethall.container import Container
from markethall.contexts import topology
from markethall.settings import read_settings
from markethall.shared.security.access_tokens import generate_private_key
from tests.e2e.servers import ADMIN, RunningServer
from tests.partitions.partitions import Block, Partition

# a development hall's secret, which a test needs to sign the card provider's webhooks
SECRET = "a-secret-for-the-halls-of-these-tests-0123456789"


@dataclass(frozen=True)
class PartitionedApp:
    """The hall as the suite knows it, the way to it, and what it is made of."""

    server: RunningServer
    http: httpx2.AsyncClient
    containers: Mapping[str, Container]


class AsgiNetwork(httpx2.AsyncBaseTransport):
    """Routes by host to the applications of this process; nobody else can be reached."""

    def __init__(self) -> None:
        self._doors: dict[str, httpx2.ASGITransport] = {}
        self._going: set[asyncio.Task[httpx2.Response]] = set()

    def register(self, host: str, app: ASGIApp) -> None:
        # an error of the server is an answer with 500, as it is over TCP
        self._doors[host] = httpx2.ASGITransport(app, raise_app_exceptions=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        door = self._doors.get(request.url.host)
        if door is None:
            raise httpx2.ConnectError("nobody lives there", request=request)
        await request.aread()
        going = asyncio.create_task(door.handle_async_request(request), context=Ambience())
        self._going.add(going)
        going.add_done_callback(self._going.discard)
        return await asyncio.shield(going)


def unchanged(_: Container) -> None:
    """Nothing is changed."""


@asynccontextmanager
async def open_partitioned_app(
    partition: Partition,
    folder: Path,
    prepare: Callable[[Container], None] = unchanged,
    **settings: Any,
) -> AsyncIterator[PartitionedApp]:
    """An application for each block, all of them open. Settings as for `read_settings`.

    Each has the keys that it signs with and no others, and a folder of its own. `prepare` may
    change the wiring before anything is opened.
    """
    neighbourhood = AsgiNetwork()
    common = {"secret_key": SECRET, "admin_email": ADMIN[0], "admin_password": ADMIN[1], **settings}
    keys = {"users": "access_token_private_key", "orders": "service_token_private_key"}
    apps = {
        block: create_app(
            read_settings(
                contexts=frozenset(block),
                context_urls=remotes_of(block, partition),
                data_dir=folder / host_of(block),
                **{keys[context]: generate_private_key() for context in block if context in keys},
                **common,
            )
        )
        for block in partition
    }
    async with AsyncExitStack() as stack:
        http = httpx2.AsyncClient(transport=neighbourhood, timeout=20)
        await stack.enter_async_context(http)
        for block, app in apps.items():
            app.container.transport.override(providers.Object(neighbourhood))
            prepare(app.container)
            neighbourhood.register(host_of(block), app)
            await stack.enter_async_context(app.lifespan())
        addresses = {context: address_of(block) for block in apps for context in block}
        containers = {context: app.container for block, app in apps.items() for context in block}
        yield PartitionedApp(RunningServer(addresses, (), folder / "none.log"), http, containers)


def host_of(block: Block) -> str:
    return "-".join(sorted(block)) + ".hall"


def address_of(block: Block) -> str:
    return f"http://{host_of(block)}"


def remotes_of(block: Block, partition: Partition) -> dict[str, str]:
    """Who must be known: whom one calls, and the two whose public keys everybody reads."""
    known = {"users", "orders"}.union(*(topology().dependencies[context] for context in block))
    return {
        context: address_of(other)
        for other in partition
        for context in other
        if context in known and other is not block
    }
