"""One product that everybody wants: how fast it can be reserved and ordered.

Beside a plain `UPDATE ... WHERE available >= 1` by asyncpg on as many connections of the same
server, which neither says for whom it takes nor can be repeated. The ways take turns, round after
round, so that what disturbs the machine disturbs all of them.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from markethall.inventory.contract import (
    Adjustment,
    Catalogue,
    Inventory,
    NewProduct,
    Price,
    Reserve,
    Stockroom,
    Want,
)
from markethall.main import create_app
from markethall.migrating import upgrade
from markethall.settings import read_settings
from markethall.shared import log
from markethall.shared.auth import CATALOGUE_WRITE, STOCK_WRITE
from markethall.shared.call import Call, system_call
from markethall.shared.db import asyncpg_url
from markethall.shared.idempotency import Answer, Attempt

from . import servers, tables
from .loop import Loop
from .servers import SERVER, Ticks

PLENTY: Final = 1_000_000
CONNECTIONS: Final = 20  # the pool of a hall
PLAIN: Final = """
CREATE TABLE shelf (shelf_id uuid PRIMARY KEY, on_hand bigint NOT NULL, reserved bigint NOT NULL,
    CHECK (0 <= reserved AND reserved <= on_hand))
"""
TAKE: Final = (
    "UPDATE shelf SET reserved = reserved + 1 WHERE shelf_id = $1 AND on_hand - reserved >= 1"
)
UPDATE, RESERVE, ORDER = "plain UPDATE", "inventory.reserve", "POST /orders"
HEADER: Final = ("what", "on one row /s", "on many rows /s", "one row / plain", "many / plain", "n")
Buy = Callable[[UUID], Awaitable[object]]


@dataclass(frozen=True)
class Options:
    """`rounds` phases of `seconds` each; `spread` rows besides the one; `held` before it begins."""

    seconds: float = 3
    warmup: float = 0.5
    rounds: int = 5
    spread: int = 1000
    held: int = 5000


@dataclass
class Found:
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
        kinds = (1, self.options.spread)
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
        yield f"{CONNECTIONS} connections; {self.options.held} holds on the one row beforehand"
        yield tables.machine_line()
        yield f"others used {self.foreign:.0%} of the cores meanwhile"


def measure(options: Options, folder: Path) -> Found:
    """Raises StartFailed, Refused."""
    log.configure("json", "warning")
    before, found = Ticks.now(), Found(options)
    with servers.database(folder) as url, servers.pinned(SERVER), closing(Loop()) as loop:
        upgrade(asyncpg_url(url))
        loop.do(_reservations(url, found))
    found.foreign = Ticks.now().foreign(before)
    return found


async def _reservations(url: str, found: Found) -> None:
    async with _ways(url, found.options) as (goods, ways):
        for number in range(-1, found.options.rounds):
            _say(f"round {number + 1} of {found.options.rounds}")
            for rows in (goods[:1], goods[1:]):
                for what, buy in ways.items():
                    count, seconds = await _phase(buy, rows, found.options)
                    if number >= 0:
                        found.note(what, len(rows), count, seconds)


@asynccontextmanager
async def _ways(url: str, options: Options) -> AsyncIterator[tuple[Sequence[UUID], dict[str, Buy]]]:
    """The goods, the first of them the wanted one, and who takes a unit of one in which way."""
    async with AsyncExitStack() as stack:
        hall = create_app(read_settings(database_url=url, database_pool_min=CONNECTIONS))
        container = hall.state.container
        inventory: Inventory = container.inventory()
        goods = await _stocked(container.catalogue(), container.stockroom(), options.spread + 1)
        pool = await asyncpg.create_pool(
            url.replace("+asyncpg", ""), min_size=CONNECTIONS, max_size=CONNECTIONS
        )
        stack.push_async_callback(pool.close)
        await pool.execute(PLAIN)
        shelves = [(product_id, PLENTY, 0) for product_id in goods]
        await pool.executemany("INSERT INTO shelf VALUES ($1, $2, $3)", shelves)
        for _ in range(options.held // 100):
            await asyncio.gather(*(_reserve(inventory, goods[0]) for _ in range(100)))
        await pool.execute("ANALYZE")
        yield (
            goods,
            {
                UPDATE: lambda product_id: pool.execute(TAKE, product_id),
                RESERVE: lambda product_id: _reserve(inventory, product_id),
            },
        )
        await container.pools().close()


async def _phase(buy: Buy, rows: Sequence[UUID], options: Options) -> tuple[int, float]:
    """How many units were taken, in how many seconds."""
    turn, closes = cycle(rows), perf_counter() + options.seconds

    async def buyer() -> int:
        taken = 0
        while perf_counter() < closes:
            await buy(next(turn))
            taken += 1
        return taken

    began = perf_counter()
    counts = await asyncio.gather(*(buyer() for _ in range(CONNECTIONS)))
    return sum(counts), perf_counter() - began


def _reserve(inventory: Inventory, product_id: UUID) -> Awaitable[object]:
    command = Reserve(
        reservation_id=uuid4(),
        order_id=uuid4(),
        customer_id=uuid4(),
        lines=(Want(product_id=product_id, quantity=1),),
        expires_at=datetime.now(UTC) + timedelta(minutes=15),
    )
    return inventory.reserve(Call(request_id="bench"), command)


async def _stocked(catalogue: Catalogue, stockroom: Stockroom, count: int) -> list[UUID]:
    call = system_call("bench")
    scopes = frozenset({CATALOGUE_WRITE, STOCK_WRITE})
    keeper = call.model_copy(update={"actor": call.actor.model_copy(update={"scopes": scopes})})
    made = []
    for number in range(count):
        price = Price(amount=1000, currency="EUR")
        new = NewProduct(sku=f"HOT-{number}", name=f"Wanted thing {number}", price=price)
        product = await catalogue.create(keeper, new, _once())
        delivery = Adjustment(delta=PLENTY, reason="received")
        await stockroom.adjust(keeper, product.product_id, delivery, _once())
        made.append(product.product_id)
    return made


def _once() -> Attempt:
    return Attempt("", uuid4(), timedelta(), _no_answer)


def _no_answer(_: Any) -> Answer:
    return Answer(status=200, body="")


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
