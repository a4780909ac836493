"""Runs a partition in one process: one application per block, connected by ASGI transports.

A partition says which contexts run in the same process; a block is the set of contexts of one
process. Each request runs in a task with empty context variables, and continues after a timeout of
the caller, as in another process.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context as ContextVars
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from starlette.types import ASGIApp

from markethall.app import Gateway
from markethall.container import ApplicationContainer
from markethall.contexts import topology
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import read_settings
from markethall.shared.security.access_tokens import generate_private_key
from tests.e2e.servers import ADMIN, RunningServer
from tests.partitions.partitions import Block, Partition

# fixed, because the tests sign webhooks of the payment provider with it
SECRET = "a-secret-for-the-applications-of-tests-0123456789"


@dataclass(frozen=True)
class PartitionedApp:
    """A running partition, with an HTTP client and the container of each context."""

    server: RunningServer
    http: httpx2.AsyncClient
    containers: Mapping[str, ApplicationContainer]


class AsgiNetwork(httpx2.AsyncBaseTransport):
    """An HTTP transport that reaches only the applications of this process, by their host."""

    def __init__(self) -> None:
        self._transports: dict[str, httpx2.ASGITransport] = {}
        self._requests: set[asyncio.Task[httpx2.Response]] = set()

    def register(self, host: str, app: ASGIApp) -> None:
        # an exception in the server gives a response with 500, as over TCP
        self._transports[host] = httpx2.ASGITransport(app, raise_app_exceptions=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        transport = self._transports.get(request.url.host)
        if transport is None:
            raise httpx2.ConnectError("unknown host", request=request)
        await request.aread()
        response = asyncio.create_task(
            transport.handle_async_request(request), context=ContextVars()
        )
        self._requests.add(response)
        response.add_done_callback(self._requests.discard)
        return await asyncio.shield(response)


@asynccontextmanager
async def open_partitioned_app(
    partition: Partition,
    folder: Path,
    container_class: type[ApplicationContainer] = ApplicationContainer,
    **settings: Any,
) -> AsyncIterator[PartitionedApp]:
    """Open one application for each block, with settings for `read_settings`.

    Each application has its own directory, and only the private keys that it needs to sign.
    """
    network = AsgiNetwork()
    common = {"secret_key": SECRET, "admin_email": ADMIN[0], "admin_password": ADMIN[1], **settings}
    keys = {
        caller: "service_token_private_key"
        for caller, called in topology().dependencies.items()
        if called
    }
    keys[topology().token_issuer] = "access_token_private_key"
    apps = {
        block: _create_app(
            network,
            container_class,
            contexts=frozenset(block),
            context_urls=remotes_of(block, partition),
            data_dir=folder / host_of(block),
            **{keys[context]: generate_private_key() for context in block if context in keys},
            **common,
        )
        for block in partition
    }
    async with AsyncExitStack() as stack:
        http = httpx2.AsyncClient(transport=network, timeout=20)
        await stack.enter_async_context(http)
        for block, app in apps.items():
            network.register(host_of(block), app)
            await stack.enter_async_context(app.lifespan())
        addresses = {context: address_of(block) for block in apps for context in block}
        containers = {context: app.container for block, app in apps.items() for context in block}
        yield PartitionedApp(RunningServer(addresses, (), folder / "none.log"), http, containers)


def _create_app(
    network: AsgiNetwork, container_class: type[ApplicationContainer], **settings: Any
) -> Gateway:
    read = read_settings(**settings)
    application_secrets = load_or_create_secrets(read)
    return Gateway(read, lambda: container_class(read, application_secrets, http_transport=network))


def host_of(block: Block) -> str:
    return "-".join(sorted(block)) + ".test"


def address_of(block: Block) -> str:
    return f"http://{host_of(block)}"


def remotes_of(block: Block, partition: Partition) -> dict[str, str]:
    """Return the URLs of the contexts that a block calls or whose public keys it reads."""
    known: frozenset[str] = frozenset().union(
        *(topology().dependencies[c] | topology().jwks_sources[c] for c in block)
    )
    return {
        context: address_of(other)
        for other in partition
        for context in other
        if context in known and other is not block
    }
