"""Measures the cost of a call between contexts: direct, by the call guard, over ASGI, over TCP.

The call guard checks every call between contexts, for example its deadline. The storage is in
memory, because a database would cost more than the call. Calls are sequential. The transports
alternate in each round, so that noise affects all of them equally.
"""

import gc
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

import httpx2

from markethall.app import Gateway, create_app
from markethall.container import ApplicationContainer
from markethall.contexts import context_names
from markethall.inventory.container import InventoryContainer
from markethall.inventory.contract import Inventory, RequestedLine, Reserve
from markethall.local.valkey import EmbeddedValkey
from markethall.orders.container import OrdersContainer
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import read_settings
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.observability import log
from markethall.shared.security.access_tokens import generate_private_key
from markethall.users.container import UsersContainer
from markethall.users.contract import Users

from . import servers, tables
from .loop import Loop
from .servers import OTHERS, Server, Ticks
from .shop import ADMIN, Refused

MEMORY: Final = {"storage": "memory", "rate_limits": "off", "bcrypt_cost": "4"}
ADMIN_SETTINGS: Final = {"admin_email": ADMIN, "admin_password": "cotton-and-market-7"}
INSIDE: Final = "http://app"  # the ASGI transport does not resolve the host
STOCK: Final = 900_000
# contexts that call no other context
LEAVES: Final = frozenset({"users", "inventory"})
CALLERS: Final = frozenset(context_names()) - LEAVES
HEADER: Final = (
    *("method", "p50 us", "p99 us", "more", "caller cpu us", "callee cpu us"),
    *("n", "transport"),
)
METHODS: Final = (
    "users.get_active_customer",
    "users.get_active_customer, a new customer",
    "inventory.reserve",
)


@dataclass(frozen=True)
class Options:
    """Each round makes `calls` calls of each method over each transport."""

    calls: int = 300
    rounds: int = 10


@dataclass
class Cost:
    """The microseconds of each call, and the CPU seconds of all calls in caller and callee."""

    calls: "array[float]" = field(default_factory=lambda: array("d"))
    caller: float = 0.0
    callee: float = 0.0

    def figures(self) -> dict[str, float]:
        return {
            "p50_us": self.p50,
            "p99_us": self.p99,
            "caller_us": self.caller_us,
            "callee_us": self.callee_us,
            "n": len(self.calls),
        }

    @property
    def p50(self) -> float:
        return median(self.calls)

    @property
    def p99(self) -> float:
        return sorted(self.calls)[len(self.calls) * 99 // 100]

    @property
    def caller_us(self) -> float:
        return self.caller * 1e6 / len(self.calls)

    @property
    def callee_us(self) -> float:
        return self.callee * 1e6 / len(self.calls)


class EntityIds(NamedTuple):
    """The ids of the customer and the product that the calls use."""

    user_id: UUID
    product_id: UUID


@dataclass(frozen=True)
class Transport:
    """A transport to the contracts of users and inventory, and the cost of each method."""

    name: str
    users: Users
    inventory: Inventory
    ids: EntityIds
    callee: int = 0  # process id of the callee, if it is another process
    costs: dict[str, Cost] = field(default_factory=lambda: {name: Cost() for name in METHODS})

    def calls(self, method: str, count: int) -> list[Callable[[], Awaitable[object]]]:
        """Return `count` prepared calls of the method."""
        return [self._call(method) for _ in range(count)]

    def _call(self, method: str) -> Callable[[], Awaitable[object]]:
        user_id, _ = self.ids
        if method == "inventory.reserve":
            ctx, command = _call_context(user_id), _reserve(self.ids)
            return lambda: self.inventory.reserve(ctx, command)
        ctx = _call_context(uuid4() if "new" in method else user_id)
        return lambda: self.users.get_active_customer(ctx, user_id)


@dataclass(frozen=True)
class ContractResult:
    """All transports, and the share of CPU time that other programs used."""

    transports: tuple[Transport, ...]
    foreign: float

    def text(self) -> str:
        return tables.text(self._rows()) + "\n" + "\n".join(self._remarks()) + "\n"

    def markdown(self) -> str:
        lines = "\n".join(f"- {line}" for line in self._remarks())
        return tables.markdown(self._rows()) + "\n" + lines + "\n"

    def write(self, options: Options) -> None:
        """Write results/contract.json."""
        calls = [
            {"method": method, "transport": transport.name, **transport.costs[method].figures()}
            for method in METHODS
            for transport in self.transports
        ]
        result = {"options": asdict(options), "foreign": self.foreign, "calls": calls}
        tables.write("contract", result)

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            HEADER,
            *(self._row(method, transport) for method in METHODS for transport in self.transports),
        ]

    def _row(self, method: str, transport: Transport) -> tuple[str, ...]:
        cost, direct = transport.costs[method], self.transports[0].costs[method]
        return (
            *(method, f"{cost.p50:,.0f}", f"{cost.p99:,.0f}", f"{cost.p50 - direct.p50:+,.0f}"),
            *(
                f"{cost.caller_us:,.0f}",
                f"{cost.callee_us:,.0f}",
                str(len(cost.calls)),
                transport.name,
            ),
        )

    def _remarks(self) -> Iterator[str]:
        yield tables.machine_line()
        yield f"other programs used {self.foreign:.0%} of the cores"


def measure(options: Options, folder: Path) -> ContractResult:
    """Run the measurement. Raises StartFailed, and Refused for a failed call."""
    log.configure("json", "warning")
    with servers.pinned(OTHERS), EmbeddedValkey() as valkey, closing(Loop()) as loop:
        return loop.do(_measured(options, folder, valkey))


async def _measured(options: Options, folder: Path, redis_url: str) -> ContractResult:
    async with _transports(folder, redis_url) as transports:
        before = Ticks.now()
        # use the garbage collector settings of the server; with the defaults, garbage collection
        # would be half of the cost
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        for transport in transports:
            await _round(transport, options.calls)
            transport.costs.update({name: Cost() for name in METHODS})
        for _ in range(options.rounds):
            for transport in transports:
                await _round(transport, options.calls)
        # measured while the servers run: afterwards their CPU time would count as foreign
        return ContractResult(tuple(transports), Ticks.now().foreign(before))


async def _round(transport: Transport, count: int) -> None:
    for method, cost in transport.costs.items():
        calls = transport.calls(method, count)
        before, cpu_before = Ticks.now(transport.callee), time.process_time()
        await _run_calls(calls, cost)
        cost.caller += time.process_time() - cpu_before
        cost.callee += Ticks.now(transport.callee).seconds(before) if transport.callee else 0


async def _run_calls(calls: list[Callable[[], Awaitable[object]]], cost: Cost) -> None:
    for call in calls:
        started = time.perf_counter()
        await call()
        cost.calls.append((time.perf_counter() - started) * 1e6)


@asynccontextmanager
async def _transports(folder: Path, redis_url: str) -> AsyncIterator[list[Transport]]:
    """Yield transports to users and inventory: in process, over ASGI, and in another process."""
    keys = {
        "service_token_private_key": generate_private_key(),
        "secret_key": uuid4().hex + uuid4().hex,
        # for the events between contexts of different processes
        "redis_url": redis_url,
    }
    monolith, leaves = (
        _create_app(contexts=frozenset(context_names()), **keys),
        _create_app(contexts=LEAVES, **keys),
    )
    ids = {app: await _create_entities_in(app) for app in (monolith, leaves)}
    with _leaf_server(folder, keys) as server:
        url = f"http://127.0.0.1:{server.port}"
        remote_ids = await _create_entities(httpx2.AsyncHTTPTransport(), url)
        asgi = _caller(INSIDE, httpx2.ASGITransport(leaves), **keys)
        tcp = _caller(url, None, **keys)
        container = monolith.container
        yield [
            Transport(
                "direct",
                container.context("users", UsersContainer).users(),
                container.context("inventory", InventoryContainer).inventory(),
                ids[monolith],
            ),
            _guarded_transport("in process", container, ids[monolith]),
            _guarded_transport("over ASGI", asgi, ids[leaves]),
            _guarded_transport("over loopback", tcp, remote_ids, server.process.pid),
        ]
        await tcp.process.http_clients().close()


def _guarded_transport(
    name: str, caller: ApplicationContainer, ids: EntityIds, callee: int = 0
) -> Transport:
    """Return a transport that uses the contract clients of the context orders."""
    clients = caller.context("orders", OrdersContainer).clients()
    return Transport(name, clients.users, clients.inventory, ids, callee)


def _create_app(**settings: Any) -> Gateway:
    """Create an application without starting it, so that no background work runs."""
    return create_app(read_settings(**MEMORY, **ADMIN_SETTINGS, **settings))


def _caller(
    leaves: str, transport: httpx2.AsyncBaseTransport | None, **settings: Any
) -> ApplicationContainer:
    """Return a container of orders and payments that calls users and inventory at a URL."""
    remotes = dict.fromkeys(LEAVES, leaves)
    read = read_settings(
        **MEMORY, **ADMIN_SETTINGS, contexts=CALLERS, context_urls=remotes, **settings
    )
    return ApplicationContainer(read, load_or_create_secrets(read), http_transport=transport)


@contextmanager
def _leaf_server(folder: Path, keys: dict[str, str]) -> Iterator[Server]:
    settings = MEMORY | ADMIN_SETTINGS | keys | {"contexts": ",".join(sorted(LEAVES))}
    environ = {f"MARKETHALL_{name.upper()}": value for name, value in settings.items()}
    log_file = folder / "leaf.log"
    with servers.serving("markethall", "serve", log=log_file, environ=environ) as server:
        server.wait("/ready")
        yield server


async def _create_entities_in(app: Gateway) -> EntityIds:
    await (
        app.container.context("users", UsersContainer)
        .accounts()
        .create_first_admin(*ADMIN_SETTINGS.values())
    )
    return await _create_entities(httpx2.ASGITransport(app))


async def _create_entities(transport: httpx2.AsyncBaseTransport, url: str = INSIDE) -> EntityIds:
    """Create a customer and a product through the API."""
    async with httpx2.AsyncClient(transport=transport, base_url=url) as http:
        customer = {"username": "ada", "email": "ada@example.com", "password": "a-lovelace-1815"}
        user = await _post(http, "/users", json=customer)
        login = {"username": ADMIN, "password": ADMIN_SETTINGS["admin_password"]}
        token = (await _post(http, "/token", data=login))["access_token"]
        http.headers["authorization"] = f"Bearer {token}"
        price = {"amount": 1999, "currency": "EUR"}
        product = await _post(http, "/products", json={"sku": "T", "name": "T", "price": price})
        path = f"/products/{product['product_id']}/stock-adjustments"
        http.headers["idempotency-key"] = "delivery"
        await _post(http, path, json={"delta": STOCK, "reason": "received"})
        return EntityIds(UUID(user["user_id"]), UUID(product["product_id"]))


async def _post(http: httpx2.AsyncClient, path: str, **options: Any) -> Any:
    response = await http.post(path, **options)
    if not response.is_success:
        raise Refused(f"{path}: {response.status_code} {response.text}")
    return response.json()


def _call_context(user_id: UUID) -> CallContext:
    """Return a call context as a customer's request has it."""
    actor = Actor(user_id=user_id, name="customer", roles=("customer",))
    deadline = datetime.now(UTC) + timedelta(seconds=60)
    trace = f"00-{uuid4().hex}-{uuid4().hex[:16]}-01"
    return CallContext(actor=actor, request_id=str(uuid4()), traceparent=trace, deadline=deadline)


def _reserve(ids: EntityIds) -> Reserve:
    return Reserve(
        reservation_id=uuid4(),
        order_id=uuid4(),
        customer_id=ids.user_id,
        lines=(RequestedLine(product_id=ids.product_id, quantity=1),),
        expires_at=datetime.now(UTC) + timedelta(minutes=15),
    )
