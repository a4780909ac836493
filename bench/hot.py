"""One product that everybody wants: how fast it can be reserved and ordered.

Beside a plain `UPDATE ... WHERE available >= 1` by asyncpg on as many connections of the same
server, which neither says for whom it takes nor can be repeated. The ways take turns, round after
round, so that what disturbs the machine disturbs all of them.
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
from markethall.container import Container
from markethall.inventory.catalogue.contract.products import Catalogue, NewProduct, Price
from markethall.inventory.contract import Inventory, RequestedLine, Reserve
from markethall.inventory.stock.contract.movements import Adjustment, Stockroom
from markethall.schema_migrations import upgrade
from markethall.settings import read_settings
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext, system_context
from markethall.shared.kernel.scopes import CATALOGUE_WRITE, STOCK_WRITE
from markethall.shared.observability import log
from markethall.shared.persistence.postgres_url import asyncpg_url

from . import servers, tables
from .client import Tally, load
from .loop import Loop
from .servers import OTHERS, SERVER, Server, Ticks
from .shop import Shop

PLENTY: Final = 1_000_000
CONNECTIONS: Final = 20  # the pool of a hall
WARMUP: Final = 0.5
CREATE_PLAIN_TABLE: Final = """
CREATE TABLE plain_stock (product_id uuid PRIMARY KEY, on_hand bigint NOT NULL, reserved bigint NOT NULL,
    CHECK (0 <= reserved AND reserved <= on_hand))
"""
RESERVE_SQL: Final = "UPDATE plain_stock SET reserved = reserved + 1 WHERE product_id = $1 AND on_hand - reserved >= 1"
UPDATE, RESERVE, ORDER = "plain UPDATE", "inventory.reserve", "POST /orders"
HEADER: Final = ("what", "on one row /s", "on many rows /s", "one row / plain", "many / plain", "n")
Buy = Callable[[UUID], Awaitable[object]]


@dataclass(frozen=True)
class Options:
    """`rounds` phases of `seconds` each; `spread` rows beside the one; `held` before it begins."""

    seconds: float = 3
    rounds: int = 5
    other_rows: int = 1000
    reservations: int = 5000
    customers: int = 200


@dataclass
class HotProductResult:
    """Rates by what was done and on how many rows, one per round."""

    options: Options
    rates: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    times: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    foreign: float = 0.0

    def note(self, what: str, rows: int, count: int, seconds: float) -> None:
        self.rates.setdefault((what, rows), []).append(count / seconds)
        self.times[what, rows] += count

    def text(self) -> str:
        return tables.text(self._rows()) + "\n" + "\n".join(self._remarks()) + "\n"

    def markdown(self) -> str:
        lines = "\n".join(f"- {line}" for line in self._remarks())
        return tables.markdown(self._rows()) + "\n" + lines + "\n"

    def write(self) -> None:
        """Write results/hot.json."""
        rates = [
            {"what": what, "rows": rows, "per_second": found}
            for (what, rows), found in self.rates.items()
        ]
        tables.write(
            "hot", {"options": asdict(self.options), "foreign": self.foreign, "rates": rates}
        )

    def _rows(self) -> list[tuple[str, ...]]:
        return [HEADER, *(self._row(what) for what in (UPDATE, RESERVE, ORDER))]

    def _row(self, what: str) -> tuple[str, ...]:
        kinds = (1, self.options.other_rows)
        rates = [self._rate(what, rows) for rows in kinds]
        ratios = [rate / self._rate(UPDATE, rows) for rate, rows in zip(rates, kinds, strict=True)]
        return (
            what,
            *(f"{rate:,.0f}" for rate in rates),
            *(f"{ratio:.0%}" for ratio in ratios),
            str(sum(self.times[what, rows] for rows in kinds)),
        )

    def _rate(self, what: str, rows: int) -> float:
        return median(self.rates.get((what, rows), [float("nan")]))

    def _remarks(self) -> Iterator[str]:
        yield f"{CONNECTIONS} connections; {self.options.reservations} holds on the one row beforehand"
        yield tables.machine_line()
        yield f"others used {self.foreign:.0%} of the cores meanwhile"


def measure(options: Options, folder: Path) -> HotProductResult:
    """Raises StartFailed, Refused."""
    log.configure("json", "warning")
    found = HotProductResult(options)
    with servers.database(folder / "database") as url, closing(Loop()) as loop:
        upgrade(asyncpg_url(url))
        with _hall(url, folder) as hall, closing(_Methods(url, loop)) as ways:
            ways.prepare(options, hall)
            before = Ticks.now()
            for number in range(-1, options.rounds):
                _print_progress(f"round {number + 1} of {options.rounds}")
                # the first one warms up
                _round(ways, hall, found if number >= 0 else HotProductResult(options))
            # while they live: what has ended is no longer counted as ours
            found.foreign = Ticks.now().foreign(before)
    return found


def _round(ways: "_Methods", hall: Server, found: HotProductResult) -> None:
    for goods in (ways.goods[:1], ways.goods[1:]):
        for what, buy in ways.inside.items():
            with servers.pinned(SERVER):
                count, seconds = ways.loop.do(_phase(buy, goods, found.options.seconds))
            found.note(what, len(goods), count, seconds)
        tally, shop = Tally(), replace(ways.shop, product_ids=[str(key) for key in goods])
        orders = shop.placing(CONNECTIONS)
        with servers.pinned(OTHERS):
            ways.loop.do(load(hall.port, orders, tally, WARMUP, found.options.seconds))
        servers.settle(hall.process.pid)
        found.note(ORDER, len(goods), len(tally.latencies["place"]), tally.closes - tally.opens)
        found.failures.update(tally.failures)


class _Methods:
    """Who takes a unit in which way, all on one database: two of them in this process."""

    def __init__(self, url: str, loop: Loop) -> None:
        self._url, self.loop = url, loop
        self.inside: dict[str, Buy] = {}
        self.goods: Sequence[UUID] = ()
        self.shop = Shop(admin_password="")

    def prepare(self, options: Options, hall: Server) -> None:
        """The first of the goods is the wanted one."""
        self.loop.do(self._prepare(options))
        self.loop.do(self.shop.register(hall.port, options.customers))
        self.loop.do(self.shop.log_in(hall.port))

    def close(self) -> None:
        self.loop.do(self._close())

    async def _prepare(self, options: Options) -> None:
        settings = read_settings(database_url=self._url, database_pool_min=CONNECTIONS)
        self._container: Container = create_app(settings).container
        inventory = self._container.inventory()
        catalogue, stockroom = self._container.catalogue(), self._container.stockroom()
        self.goods = await _create_products(catalogue, stockroom, options.other_rows + 1)
        self._pool = await _create_plain_rows(self._url, self.goods)
        for _ in range(options.reservations // 100):
            await asyncio.gather(*(_reserve(inventory, self.goods[0]) for _ in range(100)))
        await self._pool.execute("ANALYZE")
        self.inside = {
            UPDATE: lambda product_id: self._pool.execute(RESERVE_SQL, product_id),
            RESERVE: lambda product_id: _reserve(inventory, product_id),
        }

    async def _close(self) -> None:
        await self._pool.close()
        await self._container.databases().close()


@contextmanager
def _hall(url: str, folder: Path) -> Iterator[Server]:
    settings = {
        "MARKETHALL_DATABASE_URL": url,
        "MARKETHALL_DATA_DIR": str(folder / "hall"),
        "MARKETHALL_RATE_LIMITS": "off",
        "MARKETHALL_BCRYPT_COST": "4",
        # few customers buy very often
        "MARKETHALL_MAX_UNPAID_ORDERS_PER_CUSTOMER": "10000",
        "MARKETHALL_MAX_RESERVED_UNITS_PER_CUSTOMER": "10000",
        "MARKETHALL_LOG_FORMAT": "json",
    }
    log_file = folder / "hall.log"
    with servers.serving("markethall", "serve", log=log_file, environ=settings) as hall:
        hall.wait("/ready", 120)
        yield hall


async def _create_plain_rows(url: str, goods: Sequence[UUID]) -> "asyncpg.Pool[asyncpg.Record]":
    """The plain table, and as many connections as the hall has."""
    address = url.replace("+asyncpg", "")
    pool = await asyncpg.create_pool(address, min_size=CONNECTIONS, max_size=CONNECTIONS)
    await pool.execute(CREATE_PLAIN_TABLE)
    rows = [(product_id, PLENTY, 0) for product_id in goods]
    await pool.executemany("INSERT INTO plain_stock VALUES ($1, $2, $3)", rows)
    return pool


async def _phase(buy: Buy, goods: Sequence[UUID], seconds: float) -> tuple[int, float]:
    """How many units were taken, in how many seconds."""
    turn, closes = cycle(goods), perf_counter() + seconds

    async def buyer() -> int:
        units_bought = 0
        while perf_counter() < closes:
            await buy(next(turn))
            units_bought += 1
        return units_bought

    began = perf_counter()
    counts = await asyncio.gather(*(buyer() for _ in range(CONNECTIONS)))
    return sum(counts), perf_counter() - began


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
    made = []
    for number in range(count):
        price = Price(amount=1000, currency="EUR")
        new = NewProduct(sku=f"HOT-{number}", name=f"Wanted thing {number}", price=price)
        product = await catalogue.create(staff_context, new, IdempotentCommand.without_key(uuid4()))
        delivery = Adjustment(delta=PLENTY, reason="received")
        await stockroom.adjust(
            staff_context, product.product_id, delivery, IdempotentCommand.without_key(uuid4())
        )
        made.append(product.product_id)
    return made


def _print_progress(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
