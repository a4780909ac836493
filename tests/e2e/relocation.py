"""Extracts inventory into a service and returns it to the monolith, while customers buy.

The five steps:

    a  start a process of inventory beside the monolith, on the same database
    b  replace the monolith by one without inventory
    c  relocate the data of inventory to another database
    d  relocate the data back
    e  replace both processes by a monolith with inventory

Customers use one address: a reverse proxy routes by path, like a Kubernetes Ingress. The processes
find each other by two fixed addresses, like Kubernetes Services.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from starlette.types import Receive, Scope, Send

from markethall.local.cluster.app import context_of
from markethall.local.cluster.reverse_proxy import ReverseProxy
from markethall.settings import read_settings
from markethall.shared.security.access_tokens import generate_private_key
from tests.conftest import on_server
from tests.e2e.dedicated_server import environment
from tests.e2e.relocation_load import RelocationLoad, longest_gap
from tests.e2e.servers import CONTEXTS, as_json, free_port
from tests.e2e.split_cluster import ServiceProcess
from tests.progress import progress_limit
from tests.proxy import Proxy
from tests.rpc.tcp import serve_app
from tests.suspended_move import start_command, suspended_move

ALL = frozenset(CONTEXTS)
INVENTORY = frozenset({"inventory"})
STOCK = 1_000_000
TIMEOUT_SECONDS = 60
LEADER_METRIC = 'markethall_leader{context="inventory"} 1.0'


@dataclass(frozen=True)
class Plan:
    """The parameters of a run.

    `pause` is the time in seconds before and after each step. `interval` is the time in seconds
    between the starts of two customers. If `kills` is true, processes and relocations are killed.
    """

    kills: bool
    pause: float
    interval: float = 0.15
    # the number of old reservations in the database, which a relocation has to copy
    old_reservations: int = 0
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "a kill -9 in each step" if self.kills else "without kills"


@dataclass(frozen=True)
class Step:
    name: str
    started: float
    ended: float


class RelocationCluster:
    """The processes, the fixed addresses between them, and the reverse proxy."""

    def __init__(self, folder: Path, plan: Plan, redis_url: str) -> None:
        self._folder = folder
        self._plan = plan
        self._common = {
            "redis_url": redis_url,
            "secret_key": secrets.token_urlsafe(48),
            "access_token_private_key": generate_private_key(),
            "service_token_private_key": generate_private_key(),
            "database_pool_min": "1",
            "token_ttl": "7200",
            "request_deadline_seconds": "5",
            "rpc_attempt_timeout_seconds": "2",
            # while payments fail, unpaid orders accumulate, because customers keep starting at a
            # fixed rate; the limit must not reject their orders
            "max_unpaid_orders_per_customer": "1000",
            **plan.settings,
        }
        self._started: list[ServiceProcess] = []
        self.main_proxy, self.inventory_proxy = Proxy(), Proxy()
        self._public: dict[str, str] = {}
        self._proxy = ReverseProxy(self._public, read_settings(storage="memory"))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Yield the public URL; stop all started processes afterwards."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._proxy.close)
            for name in (self.main_proxy, self.inventory_proxy):
                await stack.enter_async_context(name)
            stack.push_async_callback(self._end_all)
            yield await stack.enter_async_context(serve_app(self))

    async def _end_all(self) -> None:
        for service in self._started:
            await service.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})
        owner = context_of(scope["path"])
        assert owner is not None, scope["path"]
        await self._proxy.proxy(owner, scope, receive, send)

    def route_to(self, service: ServiceProcess) -> None:
        """Route the contexts of `service`, by public path and by fixed address, to its process."""
        self._public.update(dict.fromkeys(service.serves, service.url))
        (
            self.inventory_proxy if service.serves == INVENTORY else self.main_proxy
        ).target = service.port

    async def start(self, serves: frozenset[str], database_url: str) -> ServiceProcess:
        name = f"{len(self._started)}-{'+'.join(sorted(serves))}"
        settings = {
            **self._common,
            "contexts": ",".join(sorted(serves)),
            "database_url": database_url,
        }
        settings["context_urls"] = as_json(self._urls_of_others(serves))
        folder = self._folder / name
        service = ServiceProcess(serves, free_port(), folder, environment(folder, **settings))
        self._started.append(service)
        service.spawn()
        await service.wait_until_ready()
        return service

    def _urls_of_others(self, serves: frozenset[str]) -> dict[str, str]:
        if serves == INVENTORY:
            return dict.fromkeys(("users", "orders"), self.main_proxy.url)
        return dict.fromkeys(ALL - serves, self.inventory_proxy.url)


@dataclass
class RelocationRun:
    """Runs the steps one after another."""

    plan: Plan
    cluster: RelocationCluster
    common_url: str
    own_url: str
    buyers: RelocationLoad
    server: ServiceProcess
    inventory: ServiceProcess | None = None
    steps: list[Step] = field(default_factory=list)
    kills: int = 0
    relocation_seconds: list[float] = field(default_factory=list)

    async def run(self) -> None:
        await self.wait_for_orders()
        for step in (
            self.start_service,
            self.replace_monolith,
            self.relocate_data,
            self.relocate_data_back,
            self.return_to_monolith,
        ):
            await step()
            await self.wait_for_orders()

    async def wait_for_orders(self) -> None:
        """Wait `pause` seconds, then wait until five more orders are placed."""
        served = len(self.buyers.results.placed) + 5
        await asyncio.sleep(self.plan.pause)
        async with progress_limit(TIMEOUT_SECONDS) as limit:
            while len(self.buyers.results.placed) < served:
                limit.note(len(self.buyers.results.placed))
                await asyncio.sleep(0.05)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started_at = time.monotonic()
        yield
        self.steps.append(Step(name, started_at, time.monotonic()))

    async def start_service(self) -> None:
        with self.step("a  start a service on the same database"):
            self.inventory = await self.cluster.start(INVENTORY, self.common_url)
            self.cluster.route_to(self.inventory)
            await self._assert_one_leader(self.server, self.inventory)
            await self._kill_and_restart(self.inventory)

    async def replace_monolith(self) -> None:
        with self.step("b  replace the monolith"):
            old, self.server = (
                self.server,
                await self.cluster.start(ALL - INVENTORY, self.common_url),
            )
            self.cluster.route_to(self.server)
            await self._kill_and_restart(self.server)
            await old.end()

    async def relocate_data(self) -> None:
        with self.step("c  relocate the data"):
            await self._relocate(self.common_url, self.own_url)

    async def relocate_data_back(self) -> None:
        with self.step("d  relocate the data back"):
            await self._relocate(self.own_url, self.common_url)

    async def return_to_monolith(self) -> None:
        with self.step("e  return to the monolith"):
            old, self.server = self.server, await self.cluster.start(ALL, self.common_url)
            self.cluster.route_to(self.server)
            await self._kill_and_restart(self.server)
            assert self.inventory is not None
            await self._assert_one_leader(self.server, self.inventory)
            await old.end()
            await self.inventory.end()
            await on_server(self.common_url, "DROP SCHEMA inventory_before CASCADE")

    async def _relocate(self, source: str, target: str) -> None:
        """Stop inventory, relocate its data and start it again.

        If `kills` is true, first kill a relocation in the middle of its copy, then repeat it.
        """
        assert self.inventory is not None
        await self.inventory.end()
        if self.plan.kills:
            async with suspended_move(source, target) as process:
                process.kill()
                self.kills += 1
        await self._run_relocation(source, target)
        self.inventory = await self.cluster.start(INVENTORY, target)
        self.cluster.route_to(self.inventory)

    async def _run_relocation(self, source: str, target: str) -> None:
        started_at = time.monotonic()
        process = start_command("relocate", "inventory", "--to", target, database_url=source)
        results, error = await asyncio.to_thread(process.communicate)
        assert (process.returncode, results) == (0, ""), error
        self.relocation_seconds.append(time.monotonic() - started_at)

    async def _kill_and_restart(self, service: ServiceProcess) -> None:
        if self.plan.kills:
            service.kill()
            self.kills += 1
            await service.restart()

    async def _assert_one_leader(self, *services: ServiceProcess) -> None:
        """Check that exactly one of the processes, which share a database, is the leader.

        The leader runs the background work.
        """
        leading = 0
        async with httpx2.AsyncClient() as http, asyncio.timeout(TIMEOUT_SECONDS):
            while not leading:
                pages = [await http.get(f"{service.url}/metrics") for service in services]
                leading = sum(LEADER_METRIC in page.text for page in pages)
        assert leading == 1

    def report(self) -> Iterator[str]:
        results = self.buyers.results
        yield f"{self.plan.name}: {len(results.placed)} orders placed, {len(results.failed)} failed"
        yield f"{'step':44}{'took':>7}{'orders paused':>15}{'products paused':>17}{'503':>6}"
        for step in self.steps:
            span = (step.started, step.ended)
            gaps = [longest_gap(times, *span) for times in (results.placed, results.product_reads)]
            rejected = sum(span[0] <= moment <= span[1] for moment in results.rejected)
            yield (
                f"{step.name:44}{step.ended - step.started:6.1f}s"
                f"{gaps[0]:14.1f}s{gaps[1]:16.1f}s{rejected:6}"
            )
        whole_run = (min(results.placed), max(results.placed))
        yield f"longest pause of orders: {longest_gap(results.placed, *whole_run):.1f} s"
        relocation_seconds = ", ".join(f"{seconds:.1f} s" for seconds in self.relocation_seconds)
        yield f"`markethall relocate` took: {relocation_seconds}"
        yield f"rejected and retried: {len(results.rejected)}"
        yield f"broken connections, retried: {len(results.broken_connections)}"
