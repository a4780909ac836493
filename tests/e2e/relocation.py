"""Moving day, rehearsed: inventory moves out and in again under a crowd of customers.

    a  inventory's own process starts beside the hall, on the same database
    b  the monolith calls it: a new hall calls it, the old one is told to end
    c  its data moves into a database of its own
    d  its data moves back
    e  a hall takes it in again

The customers know one address. A switch behind it routes by path, as an Ingress does; between the
processes there are two names that stay the same, as a Service does.
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
from tests.proxy import Proxy
from tests.rpc.tcp import serve_app
from tests.suspended_move import start_command, suspended_move

ALL = frozenset(CONTEXTS)
INVENTORY = frozenset({"inventory"})
STOCK = 1_000_000
PATIENCE = 60
LEADS = 'markethall_leader{context="inventory"} 1.0'


@dataclass(frozen=True)
class Plan:
    """`calm`: seconds in which nothing happens, around each step. `pace`: seconds to the next."""

    kills: bool
    calm: float
    pace: float = 0.15
    # what a hall of some age has in its tables, and what has to be copied
    old_reservations: int = 0
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "a kill -9 in each step" if self.kills else "undisturbed"


@dataclass(frozen=True)
class Step:
    name: str
    begun: float
    ended: float


class ProxyChain:
    """The processes of the day, the names by which they know each other, and the switch."""

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
            **plan.settings,
        }
        self._started: list[ServiceProcess] = []
        self.of_hall, self.of_inventory = Proxy(), Proxy()
        self._public: dict[str, str] = {}
        self._proxy = ReverseProxy(self._public, read_settings(storage="memory"))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """The one address. All that was started is ended with it."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._proxy.close)
            for name in (self.of_hall, self.of_inventory):
                await stack.enter_async_context(name)
            stack.push_async_callback(self._end_all)
            yield await stack.enter_async_context(serve_app(self))

    async def _end_all(self) -> None:
        for part in self._started:
            await part.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})
        owner = context_of(scope["path"])
        assert owner is not None, scope["path"]
        await self._proxy.proxy(owner, scope, receive, send)

    def send_to(self, part: ServiceProcess) -> None:
        """From now on the paths of what it serves lead there, and its name as well."""
        self._public.update(dict.fromkeys(part.serves, part.url))
        (self.of_inventory if part.serves == INVENTORY else self.of_hall).target = part.port

    async def start(self, serves: frozenset[str], database_url: str) -> ServiceProcess:
        name = f"{len(self._started)}-{'+'.join(sorted(serves))}"
        settings = {
            **self._common,
            "contexts": ",".join(sorted(serves)),
            "database_url": database_url,
        }
        settings["context_urls"] = as_json(self._neighbours(serves))
        home = self._folder / name
        part = ServiceProcess(serves, free_port(), home, environment(home, **settings))
        self._started.append(part)
        part.spawn()
        await part.is_ready()
        return part

    def _neighbours(self, serves: frozenset[str]) -> dict[str, str]:
        if serves == INVENTORY:
            return dict.fromkeys(("users", "orders"), self.of_hall.url)
        return dict.fromkeys(ALL - serves, self.of_inventory.url)


@dataclass
class RelocationRun:
    """The steps, each begun where the one before has ended."""

    plan: Plan
    street: ProxyChain
    common: str
    own: str
    buyers: RelocationLoad
    server: ServiceProcess
    inventory: ServiceProcess | None = None
    steps: list[Step] = field(default_factory=list)
    kills: int = 0
    moves: list[float] = field(default_factory=list)

    async def run(self) -> None:
        await self.passes()
        for step in (self.a, self.b, self.c, self.d, self.e):
            await step()
            await self.passes()

    async def passes(self) -> None:
        """Business as usual: for a while, and some have been served since."""
        served = len(self.buyers.told.placed) + 5
        await asyncio.sleep(self.plan.calm)
        async with asyncio.timeout(PATIENCE):
            while len(self.buyers.told.placed) < served:
                await asyncio.sleep(0.05)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun_at = time.monotonic()
        yield
        self.steps.append(Step(name, begun_at, time.monotonic()))

    async def a(self) -> None:
        with self.step("a  its own process starts, same database"):
            self.inventory = await self.street.start(INVENTORY, self.common)
            self.street.send_to(self.inventory)
            await self._one_leads(self.server, self.inventory)
            await self._killed_and_back(self.inventory)

    async def b(self) -> None:
        with self.step("b  the monolith calls it"):
            old, self.server = self.server, await self.street.start(ALL - INVENTORY, self.common)
            self.street.send_to(self.server)
            await self._killed_and_back(self.server)
            await old.end()

    async def c(self) -> None:
        with self.step("c  its data moves out"):
            await self._moved(self.common, self.own)

    async def d(self) -> None:
        with self.step("d  its data moves back"):
            await self._moved(self.own, self.common)

    async def e(self) -> None:
        with self.step("e  the monolith serves it again"):
            old, self.server = self.server, await self.street.start(ALL, self.common)
            self.street.send_to(self.server)
            await self._killed_and_back(self.server)
            assert self.inventory is not None
            await self._one_leads(self.server, self.inventory)
            await old.end()
            await self.inventory.end()
            await on_server(self.common, "DROP SCHEMA inventory_before CASCADE")

    async def _moved(self, here: str, there: str) -> None:
        """Stop, move, start. Killed in the middle of the copy, it is moved once more."""
        assert self.inventory is not None
        await self.inventory.end()
        if self.plan.kills:
            async with suspended_move(here, there) as process:
                process.kill()
                self.kills += 1
        await self._move(here, there)
        self.inventory = await self.street.start(INVENTORY, there)
        self.street.send_to(self.inventory)

    async def _move(self, here: str, there: str) -> None:
        begun_at = time.monotonic()
        process = start_command("relocate", "inventory", "--to", there, database_url=here)
        told, why = await asyncio.to_thread(process.communicate)
        assert (process.returncode, told) == (0, f"{there}\n"), why
        self.moves.append(time.monotonic() - begun_at)

    async def _killed_and_back(self, part: ServiceProcess) -> None:
        if self.plan.kills:
            part.kill()
            self.kills += 1
            await part.restart()

    async def _one_leads(self, *parts: ServiceProcess) -> None:
        """Two processes serve inventory on one database, and one of them does its housework."""
        leading = 0
        async with httpx2.AsyncClient() as http, asyncio.timeout(PATIENCE):
            while not leading:
                pages = [await http.get(f"{part.url}/metrics") for part in parts]
                leading = sum(LEADS in page.text for page in pages)
        assert leading == 1

    def report(self) -> Iterator[str]:
        told = self.buyers.told
        yield f"{self.plan.name}: {len(told.placed)} orders placed, {len(told.failed)} failed"
        yield f"{'step':44}{'took':>7}{'orders paused':>15}{'products paused':>17}{'503':>6}"
        for step in self.steps:
            span = (step.begun, step.ended)
            pauses = [longest_gap(times, *span) for times in (told.placed, told.seen)]
            refused = sum(span[0] <= moment <= span[1] for moment in told.refused)
            yield (
                f"{step.name:44}{step.ended - step.begun:6.1f}s"
                f"{pauses[0]:14.1f}s{pauses[1]:16.1f}s{refused:6}"
            )
        whole = (min(told.placed), max(told.placed))
        yield f"longest pause of orders: {longest_gap(told.placed, *whole):.1f} s"
        moves = ", ".join(f"{seconds:.1f} s" for seconds in self.moves)
        yield f"`markethall relocate` took: {moves}"
        yield f"refused for a moment, and tried again: {len(told.refused)}"
        yield f"connections broken, and tried again: {len(told.unheard)}"
