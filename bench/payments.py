"""Measures confirms per second by the latency of the provider, and product reads beside them.

The sandbox answers at once, or after the latency. Confirms of both kinds alternate in each round,
so that noise affects both equally. Then products are read: alone, beside 64 customers who confirm
one payment after another, and beside 64 payments that wait for the provider all the time.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from math import nan
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final, NamedTuple

from markethall.schema_migrations import upgrade
from markethall.shared.observability import log

from . import servers, tables
from .client import Request, Script, Scripts, Tally, load, pay_all, repeat
from .load_process import REFUSED
from .loop import Loop
from .round_trips import count_round_trips
from .servers import OTHERS, Server, Ticks
from .shop import ADMIN, Shop, fetch_bodies, fetch_statement_count

LATENCY: Final = 0.2  # seconds
# seconds; payments with this latency are few, so that their own work hardly uses the CPU
LONG_LATENCY: Final = 6.0
WARMUP: Final = 0.5
# the time in which the waiting payments of a phase start, which uses CPU; the measurement begins
# after it
LONG_WARMUP: Final = 2.0
PLACERS: Final = 16  # customers who place the orders; more would be refused
READERS: Final = 16
IN_FLIGHT: Final = 64
MAX_SECONDS: Final = 60.0  # the limit for paying all placed orders of one phase
GOAL: Final = 0.9  # reads beside waiting payments / reads alone
METHODS: Final[Mapping[float, str]] = {0.0: "sandbox_ok", LATENCY: "sandbox_slow"}
ALONE, ALONE_LATER = "nothing", "nothing, second server"
BESIDE: Final = f"{IN_FLIGHT} customers who pay, each answer after {LATENCY * 1000:.0f} ms"
BESIDE_WAITING: Final = f"{IN_FLIGHT} waiting payments, each answer after {LONG_LATENCY:.0f} s"
# maps the work beside the reads to the work that its ratio is based on, in the same round
BASES: Final[Mapping[str, str]] = {
    ALONE: ALONE,
    BESIDE: ALONE,
    ALONE_LATER: ALONE_LATER,
    BESIDE_WAITING: ALONE_LATER,
}
CONFIRM_HEADER: Final = (
    *("provider latency ms", "customers", "confirms /s", "by round", "p50 ms", "p99 ms"),
    *("stmts", "refused", "n"),
)
READ_HEADER: Final = (
    *("reads beside", "reads /s", "ratio", "by round", "p50 ms", "p99 ms", "confirms /s"),
    *("refused", "goal"),
)


@dataclass(frozen=True)
class Options:
    """The number of phases (`rounds`), and the approximate duration of each in `seconds`."""

    seconds: float = 3
    rounds: int = 5
    customers: tuple[int, ...] = (1, 16, 64)
    products: int = 200


class ConfirmPhase(NamedTuple):
    """The confirms of one phase. The rate is per second, latencies are in seconds.

    `statements` counts SQL statements per confirm, also those of the events after it.
    """

    rate: float
    p50: float
    p99: float
    statements: float
    confirms: int
    refused: int


class ReadPhase(NamedTuple):
    """The product reads of one phase. The rate is per second, latencies are in seconds."""

    rate: float
    p50: float
    p99: float
    confirm_rate: float
    refused: int


@dataclass
class PaymentsResult:
    """The phases by latency and number of customers, and the reads by the work beside them."""

    options: Options
    confirms: dict[tuple[float, int], list[ConfirmPhase]] = field(default_factory=dict)
    reads: dict[str, list[ReadPhase]] = field(default_factory=dict)
    round_trips: float = nan
    failures: Counter[str] = field(default_factory=Counter)
    foreign: float = 0.0

    def text(self) -> str:
        rows = [tables.text(self._confirm_rows()), tables.text(self._read_rows())]
        return "\n".join(rows) + "\n" + "\n".join(self._remarks()) + "\n"

    def markdown(self) -> str:
        rows = [tables.markdown(self._confirm_rows()), tables.markdown(self._read_rows())]
        return "\n".join(rows) + "\n" + "".join(f"- {line}\n" for line in self._remarks())

    def write(self) -> None:
        """Write results/payments.json."""
        document = {
            "options": asdict(self.options),
            "foreign": self.foreign,
            "round_trips": self.round_trips,
            "confirms": [
                {"latency": latency, "customers": customers, **phase._asdict()}
                for (latency, customers), phases in self.confirms.items()
                for phase in phases
            ],
            "reads": {
                name: [phase._asdict() for phase in phases] for name, phases in self.reads.items()
            },
            "failures": dict(self.failures),
        }
        tables.write("payments", document)

    def _confirm_rows(self) -> list[tuple[str, ...]]:
        return [CONFIRM_HEADER, *(self._confirm_row(*key) for key in sorted(self.confirms))]

    def _confirm_row(self, latency: float, customers: int) -> tuple[str, ...]:
        phases = self.confirms[latency, customers]
        rates = [phase.rate for phase in phases]
        return (
            f"{latency * 1000:.0f}",
            str(customers),
            f"{median(rates):,.0f}",
            f"{min(rates):,.0f}-{max(rates):,.0f}",
            *(tables.number(_middle(phases, name) * 1000, 1) for name in ("p50", "p99")),
            tables.number(_middle(phases, "statements"), 1),
            str(sum(phase.refused for phase in phases)),
            str(sum(phase.confirms for phase in phases)),
        )

    def _read_rows(self) -> list[tuple[str, ...]]:
        return [READ_HEADER, *(self._read_row(name) for name in self.reads)]

    def _read_row(self, name: str) -> tuple[str, ...]:
        phases = self.reads[name]
        pairs = zip(phases, self.reads[BASES[name]], strict=True)
        ratios = [one.rate / alone.rate for one, alone in pairs]
        reached = "reached" if median(ratios) >= GOAL else "missed"
        return (
            name,
            f"{_middle(phases, 'rate'):,.0f}",
            f"{median(ratios):.0%}",
            f"{min(ratios):.0%}-{max(ratios):.0%}",
            *(tables.number(_middle(phases, field) * 1000, 2) for field in ("p50", "p99")),
            tables.number(_middle(phases, "confirm_rate"), 0),
            str(sum(phase.refused for phase in phases)),
            f">= {GOAL:.0%}: {reached}" if name == BESIDE_WAITING else "",
        )

    def _remarks(self) -> Iterator[str]:
        yield (
            f"round trips to Postgres of one confirm with an idempotency key, counted on the wire:"
            f" {self.round_trips:.1f}"
        )
        yield "stmts: SQL statements per confirm, with those of the events after it"
        yield tables.machine_line()
        yield f"other programs used {self.foreign:.0%} of the cores"
        yield from (f"FAILED, {name}: {count}" for name, count in self.failures.items())


def _middle(phases: Sequence[NamedTuple], name: str) -> float:
    return float(median(getattr(phase, name) for phase in phases))


def measure(options: Options, folder: Path) -> PaymentsResult:
    """Run the measurement. Raises StartFailed, Refused."""
    log.configure("json", "warning")
    result = PaymentsResult(options)
    with (
        servers.database(folder / "database") as url,
        servers.pinned(OTHERS),
        closing(Loop()) as loop,
    ):
        upgrade(url)
        result.round_trips = loop.do(count_round_trips(url))
        shop = Shop(admin_password="correct horse battery payments")
        # measured while the application runs: afterwards its CPU time would count as foreign
        with _application(url, folder, LATENCY) as server:
            before = Ticks.now()
            bench = _PaymentsBench(loop, server, shop, result)
            bench.prepare()
            for number in range(options.rounds):
                _print_progress(f"round {number + 1} of {options.rounds}")
                bench.confirm_round()
            for _ in range(options.rounds):
                bench.read_round()
            result.foreign = Ticks.now().foreign(before)
        with _application(url, folder, LONG_LATENCY) as server:
            before = Ticks.now()
            bench = _PaymentsBench(loop, server, shop, result)
            bench.warm_up()
            for _ in range(options.rounds):
                bench.read_beside_waiting()
            result.foreign = max(result.foreign, Ticks.now().foreign(before))
    return result


@dataclass(frozen=True)
class _PaymentsBench:
    loop: Loop
    server: Server
    shop: Shop
    result: PaymentsResult

    @property
    def options(self) -> Options:
        return self.result.options

    def prepare(self) -> None:
        """Create products and customers; read each product, place and pay orders once."""
        _print_progress("preparing ...")
        self.loop.do(self.shop.stock(self.server.port, self.options.products))
        self.loop.do(self.shop.register(self.server.port, IN_FLIGHT))
        self.loop.do(self.shop.log_in(self.server.port))
        self.warm_up()

    def warm_up(self) -> None:
        port = self.server.port
        self.loop.do(fetch_bodies(port, self.shop.products()))
        self.loop.do(fetch_bodies(port, self.loop.do(self.shop.order_once(port))))

    def confirm_round(self) -> None:
        self.loop.do(self.shop.stay_logged_in(self.server.port))
        for customers in self.options.customers:
            for latency in METHODS:
                phase = self._confirms(latency, customers)
                self.result.confirms.setdefault((latency, customers), []).append(phase)

    def read_round(self) -> None:
        self.loop.do(self.shop.stay_logged_in(self.server.port))
        self._add_reads(ALONE, lambda _: [])
        self._add_reads(BESIDE, pay_all(self._place(IN_FLIGHT, LATENCY)))

    def read_beside_waiting(self) -> None:
        self.loop.do(self.shop.stay_logged_in(self.server.port))
        self._add_reads(ALONE_LATER, lambda _: [], LONG_WARMUP)
        waiting = pay_all(self._place(IN_FLIGHT, LATENCY, LONG_LATENCY))
        self._add_reads(BESIDE_WAITING, waiting, LONG_WARMUP)

    def _confirms(self, latency: float, customers: int) -> ConfirmPhase:
        """Pay the orders of a phase; each customer pays one after another."""
        unpaid = self._place(customers, latency)
        before = self.loop.do(fetch_statement_count(self.server.port))
        tally, started = Tally(tolerated=REFUSED), perf_counter()
        self.loop.do(load(self.server.port, pay_all(unpaid), tally, 0, MAX_SECONDS))
        tally.closes = min(tally.closes, perf_counter())
        seconds = tally.closes - max(tally.opens, started)
        servers.settle(self.server.process.pid)
        after = self.loop.do(fetch_statement_count(self.server.port))
        self._record_failures("confirm", tally)
        count = len(tally.latencies["confirm"])
        return ConfirmPhase(
            rate=count / seconds,
            p50=tally.percentile("confirm", 50),
            p99=tally.percentile("confirm", 99),
            statements=(after - before) / count if count and before and after else nan,
            confirms=count,
            refused=sum(tally.expected.values()),
        )

    def _add_reads(self, name: str, beside: Scripts, warmup: float = WARMUP) -> None:
        reads, tally = repeat(self.shop.products(), READERS), Tally(tolerated=REFUSED)
        servers.settle(self.server.process.pid)

        def scripts(tally: Tally) -> list[Script]:
            return [*reads(tally), *beside(tally)]

        self.loop.do(load(self.server.port, scripts, tally, warmup, self.options.seconds))
        self._record_failures(f"reads beside {name}", tally)
        phase = ReadPhase(
            tally.rate("product"),
            tally.percentile("product", 50),
            tally.percentile("product", 99),
            confirm_rate=tally.rate("confirm"),
            refused=sum(tally.expected.values()),
        )
        self.result.reads.setdefault(name, []).append(phase)

    def _place(
        self, customers: int, latency: float, actual_latency: float = 0.0
    ) -> list[list[Request]]:
        """Place orders. Return the requests that pay them, one list for each customer.

        With a latency, a list has no more requests than one customer can send in a phase.
        """
        placed: list[list[Request]] = []
        orders = self.shop.place_unpaid_orders(PLACERS, placed, METHODS[latency])
        tally = Tally(tolerated=REFUSED)
        self.loop.do(load(self.server.port, orders, tally, 0, self.options.seconds))
        self._record_failures("place", tally)
        servers.settle(self.server.process.pid)
        seconds = actual_latency or latency
        most = int((WARMUP + self.options.seconds) / seconds) + 1 if seconds else None
        unpaid = [request for requests in placed for request in requests]
        return [unpaid[number::customers][:most] for number in range(customers)]

    def _record_failures(self, name: str, tally: Tally) -> None:
        self.result.failures.update({f"{name}, {what}": n for what, n in tally.failures.items()})


@contextmanager
def _application(url: str, folder: Path, latency: float) -> Iterator[Server]:
    settings = {
        "MARKETHALL_DATABASE_URL": url,
        "MARKETHALL_DATA_DIR": str(folder / "application"),
        "MARKETHALL_RATE_LIMITS": "off",
        "MARKETHALL_ADMIN_EMAIL": ADMIN,
        "MARKETHALL_ADMIN_PASSWORD": "correct horse battery payments",
        "MARKETHALL_BCRYPT_COST": "4",
        "MARKETHALL_TOKEN_TTL": "3600",
        # high limits, because a few customers place many orders and have many payments in flight
        "MARKETHALL_MAX_UNPAID_ORDERS_PER_CUSTOMER": "100000",
        "MARKETHALL_MAX_RESERVED_UNITS_PER_CUSTOMER": "100000",
        "MARKETHALL_LOG_FORMAT": "json",
    }
    arguments = (str(latency), "serve")
    log_file = folder / "application.log"
    with servers.serving(
        "bench.slow_sandbox", *arguments, log=log_file, environ=settings
    ) as server:
        server.wait("/ready", 120)
        yield server


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
