"""What one contract call costs: direct, through the guard, over ASGI, over loopback TCP.

In memory storage, so that no database hides the way there, and one call after another. The ways
take turns, round after round, so that noise hits all of them alike.
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
from dependency_injector import providers

from markethall.app import Gateway, create_app
from markethall.container import Container
from markethall.contexts import context_names
from markethall.inventory.contract import Inventory, RequestedLine, Reserve
from markethall.settings import read_settings
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.observability import log
from markethall.shared.security.access_tokens import generate_private_key
from markethall.users.contract import Users

from . import servers, tables
from .loop import Loop
from .servers import OTHERS, Server, Ticks
from .shop import ADMIN, Refused

MEMORY: Final = {"storage": "memory", "rate_limits": "off", "bcrypt_cost": "4"}
BOSS: Final = {"admin_email": ADMIN, "admin_password": "cotton-and-market-7"}
INSIDE: Final = "http://hall"  # over ASGI nobody looks it up
STOCK: Final = 900_000
LEAVES: Final = frozenset({"users", "inventory"})
CALLERS: Final = frozenset(context_names()) - LEAVES
HEADER: Final = (
    *("method", "p50 us", "p99 us", "more", "caller cpu us", "callee cpu us"),
    *("n", "way"),
)
METHODS: Final = (
    "users.get_active_customer",
    "users.get_active_customer, a new customer",
    "inventory.reserve",
)


@dataclass(frozen=True)
class Options:
    """`calls` of each method are made `rounds` times by each way."""

    calls: int = 300
    rounds: int = 10


@dataclass
class Cost:
    """Microseconds of each call; processor seconds of all of them, on both sides."""

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


class Goods(NamedTuple):
    """What is asked about."""

    user_id: UUID
    product_id: UUID


@dataclass(frozen=True)
class Way:
    """One way to the two contracts, and what its calls have cost so far, by method."""

    name: str
    users: Users
    inventory: Inventory
    goods: Goods
    callee: int = 0  # the process that answers, where it is another one
    costs: dict[str, Cost] = field(default_factory=lambda: {name: Cost() for name in METHODS})

    def calls(self, method: str, count: int) -> list[Callable[[], Awaitable[object]]]:
        """So many calls of it, made ready, each to be made once."""
        return [self._call(method) for _ in range(count)]

    def _call(self, method: str) -> Callable[[], Awaitable[object]]:
        user_id, _ = self.goods
        if method == "inventory.reserve":
            ctx, command = _call_of(user_id), _reserve(self.goods)
            return lambda: self.inventory.reserve(ctx, command)
        ctx = _call_of(uuid4() if "new" in method else user_id)
        return lambda: self.users.get_active_customer(ctx, user_id)


@dataclass(frozen=True)
class Found:
    """All ways, and the share of the cores that others used meanwhile."""

    ways: tuple[Way, ...]
    foreign: float

    def text(self) -> str:
        return tables.text(self._rows()) + "\n" + "\n".join(self._remarks()) + "\n"

    def markdown(self) -> str:
        lines = "\n".join(f"- {line}" for line in self._remarks())
        return tables.markdown(self._rows()) + "\n" + lines + "\n"

    def write(self, options: Options) -> None:
        """Write results/contract.json."""
        calls = [
            {"method": method, "way": way.name, **way.costs[method].figures()}
            for method in METHODS
            for way in self.ways
        ]
        found = {"options": asdict(options), "foreign": self.foreign, "calls": calls}
        tables.write("contract", found)

    def _rows(self) -> list[tuple[str, ...]]:
        return [HEADER, *(self._row(method, way) for method in METHODS for way in self.ways)]

    def _row(self, method: str, way: Way) -> tuple[str, ...]:
        cost, direct = way.costs[method], self.ways[0].costs[method]
        return (
            *(method, f"{cost.p50:,.0f}", f"{cost.p99:,.0f}", f"{cost.p50 - direct.p50:+,.0f}"),
            *(f"{cost.caller_us:,.0f}", f"{cost.callee_us:,.0f}", str(len(cost.calls)), way.name),
        )

    def _remarks(self) -> Iterator[str]:
        yield tables.machine_line()
        yield f"others used {self.foreign:.0%} of the cores meanwhile"


def measure(options: Options, folder: Path) -> Found:
    """Raises StartFailed; Refused when a call is not answered."""
    log.configure("json", "warning")
    before = Ticks.now()
    with servers.pinned(OTHERS), closing(Loop()) as loop:
        ways = loop.do(_measured(options, folder))
    return Found(tuple(ways), Ticks.now().foreign(before))


async def _measured(options: Options, folder: Path) -> list[Way]:
    async with _ways(folder) as ways:
        # as the server does, or the collector would be half of what is measured
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        for way in ways:
            await _round(way, options.calls)
            way.costs.update({name: Cost() for name in METHODS})
        for _ in range(options.rounds):
            for way in ways:
                await _round(way, options.calls)
        return ways


async def _round(way: Way, count: int) -> None:
    for method, cost in way.costs.items():
        calls = way.calls(method, count)
        before, spent = Ticks.now(way.callee), time.process_time()
        await _make(calls, cost)
        cost.caller += time.process_time() - spent
        cost.callee += Ticks.now(way.callee).seconds(before) if way.callee else 0


async def _make(calls: list[Callable[[], Awaitable[object]]], cost: Cost) -> None:
    for call in calls:
        began = time.perf_counter()
        await call()
        cost.calls.append((time.perf_counter() - began) * 1e6)


@asynccontextmanager
async def _ways(folder: Path) -> AsyncIterator[list[Way]]:
    """The hall in one process; its leaves behind ASGI; its leaves in a process of their own."""
    keys = {
        "service_token_private_key": generate_private_key(),
        "secret_key": uuid4().hex + uuid4().hex,
    }
    whole, leaves = (
        _hall(contexts=frozenset(context_names()), **keys),
        _hall(contexts=LEAVES, **keys),
    )
    goods = {hall: await _delivered_inside(hall) for hall in (whole, leaves)}
    with _leaf(folder, keys) as leaf:
        address = f"http://127.0.0.1:{leaf.port}"
        away = await _delivered(httpx2.AsyncHTTPTransport(), address)
        asgi, tcp = _caller(INSIDE, **keys), _caller(address, **keys)
        asgi.transport.override(providers.Object(httpx2.ASGITransport(leaves)))
        inside: Container = whole.container
        yield [
            Way("direct", inside.users(), inside.inventory(), goods[whole]),
            _guarded("in process", inside, goods[whole]),
            _guarded("over ASGI", asgi, goods[leaves]),
            _guarded("over loopback", tcp, away, leaf.process.pid),
        ]
        await tcp.http_clients().close()


def _guarded(name: str, caller: Container, goods: Goods, callee: int = 0) -> Way:
    """The two contracts as orders has them in its hands."""
    orders = caller.orders_context
    return Way(name, orders.users(), orders.inventory(), goods, callee)


def _hall(**settings: Any) -> Gateway:
    """Not opened: no background work takes part."""
    return create_app(read_settings(**MEMORY, **BOSS, **settings))


def _caller(leaves: str, **settings: Any) -> Container:
    """Orders and payments, with the leaves elsewhere."""
    remotes = dict.fromkeys(LEAVES, leaves)
    return _hall(contexts=CALLERS, context_urls=remotes, **settings).container


@contextmanager
def _leaf(folder: Path, keys: dict[str, str]) -> Iterator[Server]:
    given = MEMORY | BOSS | keys | {"contexts": ",".join(sorted(LEAVES))}
    environ = {f"MARKETHALL_{name.upper()}": value for name, value in given.items()}
    log_file = folder / "leaf.log"
    with servers.serving("markethall", "serve", log=log_file, environ=environ) as leaf:
        leaf.wait("/ready")
        yield leaf


async def _delivered_inside(hall: Gateway) -> Goods:
    await hall.container.accounts().create_first_admin(*BOSS.values())
    return await _delivered(httpx2.ASGITransport(hall))


async def _delivered(transport: httpx2.AsyncBaseTransport, address: str = INSIDE) -> Goods:
    """A customer and a product, made through the API."""
    async with httpx2.AsyncClient(transport=transport, base_url=address) as http:
        customer = {"username": "ada", "email": "ada@example.com", "password": "a-lovelace-1815"}
        user = await _answer(http, "/users", json=customer)
        login = {"username": ADMIN, "password": BOSS["admin_password"]}
        token = (await _answer(http, "/token", data=login))["access_token"]
        http.headers["authorization"] = f"Bearer {token}"
        price = {"amount": 1999, "currency": "EUR"}
        product = await _answer(http, "/products", json={"sku": "T", "name": "T", "price": price})
        path = f"/products/{product['product_id']}/stock-adjustments"
        http.headers["idempotency-key"] = "delivery"
        await _answer(http, path, json={"delta": STOCK, "reason": "received"})
        return Goods(UUID(user["user_id"]), UUID(product["product_id"]))


async def _answer(http: httpx2.AsyncClient, path: str, **given: Any) -> Any:
    answer = await http.post(path, **given)
    if not answer.is_success:
        raise Refused(f"{path}: {answer.status_code} {answer.text}")
    return answer.json()


def _call_of(user_id: UUID) -> CallContext:
    """As the front makes it of a customer's request."""
    actor = Actor(user_id=user_id, name="customer", roles=("customer",))
    until = datetime.now(UTC) + timedelta(seconds=60)
    trace = f"00-{uuid4().hex}-{uuid4().hex[:16]}-01"
    return CallContext(actor=actor, request_id=str(uuid4()), traceparent=trace, deadline=until)


def _reserve(goods: Goods) -> Reserve:
    return Reserve(
        reservation_id=uuid4(),
        order_id=uuid4(),
        customer_id=goods.user_id,
        lines=(RequestedLine(product_id=goods.product_id, quantity=1),),
        expires_at=datetime.now(UTC) + timedelta(minutes=15),
    )
