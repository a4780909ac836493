"""Measures how fast one product under high demand can be reserved and ordered.

The baseline is a plain `UPDATE ... WHERE available >= 1` with asyncpg and the same number of
connections; it stores no customer and is not idempotent. The methods alternate in each round, so
that noise affects all of them equally.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final
from uuid import UUID, uuid4

import asyncpg

from markethall.app import create_app
from markethall.inventory.catalogue.contract.products import Catalogue, NewProduct, Price
from markethall.inventory.container import InventoryContainer
from markethall.inventory.contract import Inventory, RequestedLine, Reserve
from markethall.inventory.stock.contract import Adjustment, Stockroom
from markethall.schema_migrations import upgrade
from markethall.settings import read_settings
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext, system_context
from markethall.shared.kernel.scopes import CATALOGUE_WRITE, STOCK_WRITE
from markethall.shared.observability import log

from . import servers, tables
from .client import Tally, load
from .loop import Loop
from .servers import OTHERS, SERVER, Server, Ticks
from .shop import Shop

STOCK: Final = 1_000_000
CONNECTIONS: Final = 20  # the pool size of the application
WARMUP: Final = 0.5
CREATE_PLAIN_TABLE: Final = """
CREATE TABLE plain_stock (product_id uuid PRIMARY KEY, on_hand bigint NOT NULL, reserved bigint
  NOT NULL,
    CHECK (0 <= reserved AND reserved <= on_hand))
"""
RESERVE_SQL: Final = (
    "UPDATE plain_stock SET reserved = reserved + 1 WHERE product_id = $1 AND "
    "on_hand - reserved >= 1"
)
UPDATE, RESERVE, ORDER = "plain UPDATE", "inventory.reserve", "POST /orders"
HEADER: Final = (
    "method",
    "on one row /s",
    "on many rows /s",
    "one row / plain",
    "many / plain",
    "n",
)
Buy = Callable[[UUID], Awaitable[object]]


@dataclass(frozen=True)
class Options:
    """`rounds` phases of `seconds` each.

    The product under high demand has `reservations` before the run. For comparison, `other_rows`
    products are reserved in turn.
    """

    seconds: float = 3
    rounds: int = 5
    other_rows: int = 1000
    reservations: int = 5000
    customers: int = 200


@dataclass
class HotProductResult:
    """The rates of each method and number of rows, one rate per round."""

    options: Options
    rates: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    foreign: float = 0.0

    def add(self, method: str, rows: int, count: int, seconds: float) -> None:
        self.rates.setdefault((method, rows), []).append(count / seconds)
        self.counts[method, rows] += count

    def text(self) -> str:
        return tables.text(self._rows()) + "\n" + "\n".join(self._remarks()) + "\n"

    def markdown(self) -> str:
        lines = "\n".join(f"- {line}" for line in self._remarks())
        return tables.markdown(self._rows()) + "\n" + lines + "\n"

    def write(self) -> None:
        """Write results/hot.json."""
        rates = [
            {"method": method, "rows": rows, "per_second": result}
            for (method, rows), result in self.rates.items()
        ]
        tables.write(
            "hot", {"options": asdict(self.options), "foreign": self.foreign, "rates": rates}
        )

    def _rows(self) -> list[tuple[str, ...]]:
        return [HEADER, *(self._row(method) for method in (UPDATE, RESERVE, ORDER))]

    def _row(self, method: str) -> tuple[str, ...]:
        row_counts = (1, self.options.other_rows)
        rates = [self._rate(method, rows) for rows in row_counts]
        ratios = [
            rate / self._rate(UPDATE, rows) for rate, rows in zip(rates, row_counts, strict=True)
        ]
        return (
            method,
            *(f"{rate:,.0f}" for rate in rates),
            *(f"{ratio:.0%}" for ratio in ratios),
            str(sum(self.counts[method, rows] for rows in row_counts)),
        )

    def _rate(self, method: str, rows: int) -> float:
        return median(self.rates.get((method, rows), [float("nan")]))

    def _remarks(self) -> Iterator[str]:
        yield (
            f"{CONNECTIONS} connections; {self.options.reservations} existing "
            f"reservations on the one row"
        )
        yield tables.machine_line()
        yield f"other programs used {self.foreign:.0%} of the cores"


def measure(options: Options, folder: Path) -> HotProductResult:
    """Run the measurement. Raises StartFailed, Refused."""
    log.configure("json", "warning")
    result = HotProductResult(options)
    with servers.database(folder / "database") as url, closing(Loop()) as loop:
        upgrade(url)
        with _application(url, folder) as server, closing(_Methods(url, loop)) as methods:
            methods.prepare(options, server)
            before = Ticks.now()
            for number in range(-1, options.rounds):
                _print_progress(f"round {number + 1} of {options.rounds}")
                # the first round is a warm-up
                _round(methods, server, result if number >= 0 else HotProductResult(options))
            # measured before the processes end: afterwards their CPU time would count as foreign
            result.foreign = Ticks.now().foreign(before)
    return result


def _round(methods: "_Methods", server: Server, result: HotProductResult) -> None:
    for product_ids in (methods.product_ids[:1], methods.product_ids[1:]):
        for method, buy in methods.by_method.items():
            with servers.pinned(SERVER):
                count, seconds = methods.loop.do(_phase(buy, product_ids, result.options.seconds))
            result.add(method, len(product_ids), count, seconds)
        tally, shop = Tally(), replace(methods.shop, product_ids=[str(key) for key in product_ids])
        orders = shop.place_orders(CONNECTIONS)
        with servers.pinned(OTHERS):
            methods.loop.do(load(server.port, orders, tally, WARMUP, result.options.seconds))
        servers.settle(server.process.pid)
        result.add(
            ORDER, len(product_ids), len(tally.latencies["place"]), tally.closes - tally.opens
        )
        result.failures.update(tally.failures)


class _Methods:
    """The methods that reserve a unit. Two of them run in this process; orders go to a server."""

    def __init__(self, url: str, loop: Loop) -> None:
        self._url, self.loop = url, loop
        self.by_method: dict[str, Buy] = {}
        self.product_ids: Sequence[UUID] = ()
        self.shop = Shop(admin_password="")

    def prepare(self, options: Options, server: Server) -> None:
        """Create products and customers. The first product is the one under high demand."""
        self.loop.do(self._prepare(options))
        self.loop.do(self.shop.register(server.port, options.customers))
        self.loop.do(self.shop.log_in(server.port))

    def close(self) -> None:
        self.loop.do(self._close())

    async def _prepare(self, options: Options) -> None:
        settings = read_settings(database_url=self._url, database_pool_min=CONNECTIONS)
        self._container = create_app(settings).container
        container = self._container.context("inventory", InventoryContainer)
        inventory, catalogue, stockroom = (
            container.inventory(),
            container.catalogue(),
            container.stockroom(),
        )
        self.product_ids = await _create_products(catalogue, stockroom, options.other_rows + 1)
        self._pool = await _create_plain_rows(self._url, self.product_ids)
        for _ in range(options.reservations // 100):
            await asyncio.gather(*(_reserve(inventory, self.product_ids[0]) for _ in range(100)))
        await self._pool.execute("ANALYZE")
        self.by_method = {
            UPDATE: lambda product_id: self._pool.execute(RESERVE_SQL, product_id),
            RESERVE: lambda product_id: _reserve(inventory, product_id),
        }

    async def _close(self) -> None:
        await self._pool.close()
        await self._container.close()


@contextmanager
def _application(url: str, folder: Path) -> Iterator[Server]:
    settings = {
        "MARKETHALL_DATABASE_URL": url,
        "MARKETHALL_DATA_DIR": str(folder / "application"),
        "MARKETHALL_RATE_LIMITS": "off",
        "MARKETHALL_BCRYPT_COST": "4",
        # high limits, because a few customers place many orders
        "MARKETHALL_MAX_UNPAID_ORDERS_PER_CUSTOMER": "10000",
        "MARKETHALL_MAX_RESERVED_UNITS_PER_CUSTOMER": "10000",
        "MARKETHALL_LOG_FORMAT": "json",
    }
    log_file = folder / "application.log"
    with servers.serving("markethall", "serve", log=log_file, environ=settings) as server:
        server.wait("/ready", 120)
        yield server


async def _create_plain_rows(
    url: str, product_ids: Sequence[UUID]
) -> "asyncpg.Pool[asyncpg.Record]":
    """Create the table of the baseline. Return a pool as large as that of the application."""
    address = url.replace("+asyncpg", "")
    pool = await asyncpg.create_pool(address, min_size=CONNECTIONS, max_size=CONNECTIONS)
    await pool.execute(CREATE_PLAIN_TABLE)
    rows = [(product_id, STOCK, 0) for product_id in product_ids]
    await pool.executemany("INSERT INTO plain_stock VALUES ($1, $2, $3)", rows)
    return pool


async def _phase(buy: Buy, product_ids: Sequence[UUID], seconds: float) -> tuple[int, float]:
    """Reserve units for `seconds`; return the number of units and the real seconds."""
    ids_in_turn, ends_at = cycle(product_ids), perf_counter() + seconds

    async def buyer() -> int:
        units_bought = 0
        while perf_counter() < ends_at:
            await buy(next(ids_in_turn))
            units_bought += 1
        return units_bought

    started = perf_counter()
    counts = await asyncio.gather(*(buyer() for _ in range(CONNECTIONS)))
    return sum(counts), perf_counter() - started


def _reserve(inventory: Inventory, product_id: UUID) -> Awaitable[object]:
    command = Reserve(
        reservation_id=uuid4(),
        order_id=uuid4(),
        customer_id=uuid4(),
        lines=(RequestedLine(product_id=product_id, quantity=1),),
        expires_at=datetime.now(UTC) + timedelta(minutes=15),
    )
    return inventory.reserve(CallContext(request_id="bench"), command)


async def _create_products(catalogue: Catalogue, stockroom: Stockroom, count: int) -> list[UUID]:
    ctx = system_context("bench")
    scopes = frozenset({CATALOGUE_WRITE, STOCK_WRITE})
    staff_context = ctx.model_copy(
        update={"actor": ctx.actor.model_copy(update={"scopes": scopes})}
    )
    created = []
    for number in range(count):
        price = Price(amount=1000, currency="EUR")
        new = NewProduct(sku=f"HOT-{number}", name=f"Hot product {number}", price=price)
        product = await catalogue.create(staff_context, new, IdempotentCommand.without_key(uuid4()))
        receipt = Adjustment(delta=STOCK, reason="received")
        await stockroom.adjust(
            staff_context, product.product_id, receipt, IdempotentCommand.without_key(uuid4())
        )
        created.append(product.product_id)
    return created


def _print_progress(method: str) -> None:
    print(method, file=sys.stderr, flush=True)
