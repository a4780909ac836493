"""Measures the service under more load than it can serve.

First a closed loop finds the capacity: each connection waits for its response before it sends the
next order. Then an open loop, which does not wait, sends one, two and three times as many orders
per second. Then the orders of other customers are measured, while one customer sends bursts of
orders, and while one client address searches or reads the metrics.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from math import nan
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final, NamedTuple
from urllib.parse import urlencode

from markethall.schema_migrations import upgrade

from . import servers, tables
from .client import Request, Tally, load, request_bytes
from .load_process import REFUSED, DueRequest, LoadProcess, Outcome, percentile
from .loop import Loop
from .servers import OTHERS, Server, Ticks
from .shop import ADMIN, Shop

CONNECTIONS: Final = 20  # the pool size of the application
OTHER_CUSTOMERS: Final = 9
BURST: Final = 500  # orders that one customer sends at the same time, every second
STORM: Final = 24  # connections of one client address
WARMUP: Final = 1.0
MULTIPLES: Final = (1, 2, 3)  # a share of the capacity
GOAL: Final = 0.9  # goodput at three times the capacity / at the capacity
LOAD_HEADER: Final = (
    *("load", "offered /s", "goodput /s", "ratio", "by round", "ratio by cpu", "refused"),
    *("rejection p50 ms", "max ms", "p50 ms", "p99 ms", "server", "generator", "late ms", "goal"),
)
DISTURBED_HEADER: Final = (
    *("orders beside", "orders /s", "ratio", "p50 ms", "p50 ratio", "p99 ms", "p99 ratio"),
    *("answered /s", "refused /s", "slowest rejection ms"),
)


@dataclass(frozen=True)
class Options:
    """`rounds` phases of `seconds` each; `catalogue` products are searched."""

    seconds: float = 4
    rounds: int = 5
    customers: int = 128
    products: int = 50
    catalogue: int = 30_000


class LoadPhase(NamedTuple):
    """One phase of an open loop. Rates are per second, latencies in seconds.

    `refused` is a share of the responses; `server` and `generator` are shares of a core.
    """

    offered: float
    goodput: float
    per_cpu_second: float
    refused: float
    rejection_p50: float
    slowest_rejection: float
    p50: float
    p99: float
    server: float
    generator: float
    late: float


class DisturbedPhase(NamedTuple):
    """The orders of one phase, and the responses to the requests that disturb them.

    Rates are per second, latencies in seconds.
    """

    rate: float
    p50: float
    p99: float
    answered: float = nan
    refused: float = nan
    slowest_rejection: float = nan


@dataclass
class OverloadResult:
    """The phases of each multiple of the capacity, and of each kind of disturbing requests."""

    options: Options
    capacities: list[float] = field(default_factory=list)
    loads: dict[int, list[LoadPhase]] = field(default_factory=dict)
    disturbed: dict[str, list[DisturbedPhase]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    foreign: float = 0.0

    def text(self) -> str:
        rows = [tables.text(self._load_rows()), tables.text(self._disturbed_rows())]
        return "\n".join(rows) + "\n" + "\n".join(self._remarks()) + "\n"

    def markdown(self) -> str:
        rows = [tables.markdown(self._load_rows()), tables.markdown(self._disturbed_rows())]
        return "\n".join(rows) + "\n" + "".join(f"- {line}\n" for line in self._remarks())

    def write(self) -> None:
        """Write results/overload.json."""
        document = {
            "options": asdict(self.options),
            "foreign": self.foreign,
            "capacities": self.capacities,
            "loads": {
                str(multiple): [phase._asdict() for phase in phases]
                for multiple, phases in self.loads.items()
            },
            "disturbed": {
                name: [phase._asdict() for phase in phases]
                for name, phases in self.disturbed.items()
            },
            "failures": dict(self.failures),
        }
        tables.write("overload", document)

    def _load_rows(self) -> list[tuple[str, ...]]:
        return [LOAD_HEADER, *(self._load_row(multiple) for multiple in sorted(self.loads))]

    def _load_row(self, multiple: int) -> tuple[str, ...]:
        phases, base = self.loads[multiple], self.loads[1]
        ratios = [one.goodput / other.goodput for one, other in zip(phases, base, strict=True)]
        by_cpu = [
            one.per_cpu_second / other.per_cpu_second
            for one, other in zip(phases, base, strict=True)
        ]
        reached = "reached" if median(ratios) >= GOAL else "missed"
        return (
            f"{multiple} x",
            f"{_middle(phases, 'offered'):,.0f}",
            f"{_middle(phases, 'goodput'):,.0f}",
            f"{median(ratios):.0%}",
            f"{min(ratios):.0%}-{max(ratios):.0%}",
            f"{median(by_cpu):.0%}",
            f"{_middle(phases, 'refused'):.0%}",
            tables.number(_middle(phases, "rejection_p50") * 1000, 1),
            tables.number(max(phase.slowest_rejection for phase in phases) * 1000, 0),
            tables.number(_middle(phases, "p50") * 1000, 0),
            tables.number(_middle(phases, "p99") * 1000, 0),
            f"{_middle(phases, 'server'):.0%}",
            f"{_middle(phases, 'generator'):.0%}",
            tables.number(max(phase.late for phase in phases) * 1000, 0),
            f">= {GOAL:.0%}: {reached}" if multiple == max(MULTIPLES) else "",
        )

    def _disturbed_rows(self) -> list[tuple[str, ...]]:
        return [DISTURBED_HEADER, *(self._disturbed_row(name) for name in self.disturbed)]

    def _disturbed_row(self, name: str) -> tuple[str, ...]:
        phases = self.disturbed[name]
        alone = self.disturbed[ALONE[name]]
        return (
            name,
            f"{_middle(phases, 'rate'):,.0f}",
            f"{_ratio(phases, alone, 'rate'):.0%}",
            tables.number(_middle(phases, "p50") * 1000, 1),
            f"{_ratio(phases, alone, 'p50'):.1f}",
            tables.number(_middle(phases, "p99") * 1000, 1),
            f"{_ratio(phases, alone, 'p99'):.1f}",
            tables.number(_middle(phases, "answered"), 0),
            tables.number(_middle(phases, "refused"), 0),
            tables.number(max(phase.slowest_rejection for phase in phases) * 1000, 0),
        )

    def _remarks(self) -> Iterator[str]:
        yield (
            f"capacity by a closed loop with {CONNECTIONS} connections: "
            f"{median(self.capacities):,.0f} orders per second"
        )
        yield "ratio by cpu: the ratio of the goodput per CPU second of the server"
        yield tables.machine_line()
        yield f"other programs used {self.foreign:.0%} of the cores"
        yield from (f"FAILED, {name}: {count}" for name, count in self.failures.items())


NINE_ALONE, NINE_AND_BURST = "9 customers: nothing", f"9 customers: bursts of {BURST}"
ALL_ALONE, SEARCHES = "20 customers: nothing", f"20 customers: {STORM} facet searches"
METRICS = f"20 customers: {STORM} scrapes of /metrics"
# maps each kind of phase to the one without disturbing requests
ALONE: Final[Mapping[str, str]] = {
    NINE_ALONE: NINE_ALONE,
    NINE_AND_BURST: NINE_ALONE,
    ALL_ALONE: ALL_ALONE,
    SEARCHES: ALL_ALONE,
    METRICS: ALL_ALONE,
}


def _middle(phases: Sequence[NamedTuple], name: str) -> float:
    return float(median(getattr(phase, name) for phase in phases))


def _ratio(phases: Sequence[NamedTuple], alone: Sequence[NamedTuple], name: str) -> float:
    pairs = zip(phases, alone, strict=True)
    return float(median(getattr(one, name) / getattr(other, name) for one, other in pairs))


def measure(options: Options, folder: Path) -> OverloadResult:
    """Run the measurement. Raises StartFailed, Refused."""
    result = OverloadResult(options)
    with (
        servers.database(folder / "database") as url,
        servers.pinned(OTHERS),
        closing(Loop()) as loop,
        closing(LoadProcess()) as generator,
    ):
        upgrade(url)
        shop = _prepare(url, folder, options, loop)
        with _application(url, folder, rate_limits="on") as server:
            before = Ticks.now()
            bench = _OverloadBench(loop, generator, server, shop)
            for number in range(options.rounds):
                _print_progress(f"round {number + 1} of {options.rounds}")
                bench.run_round(result)
            # measured before the processes end: afterwards their CPU time would count as foreign
            result.foreign = Ticks.now().foreign(before)
    return result


@dataclass(frozen=True)
class _OverloadBench:
    loop: Loop
    generator: LoadProcess
    server: Server
    shop: Shop

    def run_round(self, result: OverloadResult) -> None:
        seconds = result.options.seconds
        capacity = self._capacity(seconds, result)
        result.capacities.append(capacity)
        for multiple in MULTIPLES:
            phase = self._open_loop(capacity * multiple, seconds, result)
            result.loads.setdefault(multiple, []).append(phase)
        for name, beside in self._disturbed_phases(seconds, result):
            result.disturbed.setdefault(name, []).append(beside)

    def _capacity(self, seconds: float, result: OverloadResult) -> float:
        servers.settle(self.server.process.pid)
        return self._orders(CONNECTIONS, seconds, result).rate("place")

    def _open_loop(self, rate: float, seconds: float, result: OverloadResult) -> LoadPhase:
        duration = WARMUP + seconds
        orders = self._order_requests(int(rate * duration))
        requests = [DueRequest(number / rate, order) for number, order in enumerate(orders)]
        servers.settle(self.server.process.pid)
        before, started = Ticks.now(self.server.process.pid), perf_counter()
        outcome = self.generator.start_open_loop(self.server.port, requests).result()
        cpu_seconds = Ticks.now(self.server.process.pid).seconds(before)
        elapsed = perf_counter() - started
        result.failures.update({f"open loop, {name}": n for name, n in outcome.failures.items()})
        return _to_load_phase(outcome, rate, duration, cpu_seconds, elapsed)

    def _disturbed_phases(
        self, seconds: float, result: OverloadResult
    ) -> Iterator[tuple[str, DisturbedPhase]]:
        def orders(customers: int) -> DisturbedPhase:
            return _to_disturbed_phase(self._orders(customers, seconds, result))

        # wait for an idle server before each phase; beside disturbing requests it is never idle
        servers.settle(self.server.process.pid)
        yield NINE_ALONE, orders(OTHER_CUSTOMERS)
        servers.settle(self.server.process.pid)
        yield NINE_AND_BURST, self._beside_bursts(seconds, lambda: orders(OTHER_CUSTOMERS), result)
        servers.settle(self.server.process.pid)
        yield ALL_ALONE, orders(CONNECTIONS)
        for name, requests in ((SEARCHES, _searches()), (METRICS, _scrapes())):
            servers.settle(self.server.process.pid)
            yield name, self._beside_storm(requests, seconds, lambda: orders(CONNECTIONS), result)

    def _beside_bursts(
        self, seconds: float, orders: Callable[[], DisturbedPhase], result: OverloadResult
    ) -> DisturbedPhase:
        # the last customer sends the bursts; the orders of the first customers are measured
        shop = self.shop
        script = shop.place_orders(len(shop.tokens))(Tally())[-1]
        payloads = [next(script).payload for _ in range(BURST * int(WARMUP + seconds))]
        requests = [DueRequest(number // BURST, each) for number, each in enumerate(payloads)]
        burst = self.generator.start_open_loop(self.server.port, requests)
        phase, outcome = orders(), burst.result()
        result.failures.update({f"burst, {name}": n for name, n in outcome.failures.items()})
        return phase._replace(
            answered=len(outcome.accepted) / (WARMUP + seconds),
            refused=len(outcome.refused) / (WARMUP + seconds),
            slowest_rejection=max((each.latency for each in outcome.refused), default=nan),
        )

    def _beside_storm(
        self,
        requests: Sequence[Request],
        seconds: float,
        orders: Callable[[], DisturbedPhase],
        result: OverloadResult,
    ) -> DisturbedPhase:
        duration = WARMUP + seconds
        storm = self.generator.start_closed_loop(self.server.port, requests, STORM, duration)
        phase, tally = orders(), storm.result()
        result.failures.update({f"storm, {name}": n for name, n in tally.failures.items()})
        return phase._replace(
            answered=sum(tally.answered.values()) / duration,
            refused=sum(tally.expected.values()) / duration,
        )

    def _orders(self, customers: int, seconds: float, result: OverloadResult) -> Tally:
        tally = Tally(tolerated=REFUSED)
        scripts = self.shop.place_orders(customers)
        self.loop.do(load(self.server.port, scripts, tally, WARMUP, seconds))
        result.failures.update({f"orders, {name}": n for name, n in tally.failures.items()})
        return tally

    def _order_requests(self, count: int) -> list[bytes]:
        scripts = self.shop.place_orders(len(self.shop.tokens))(Tally())
        return [next(script).payload for script in islice(cycle(scripts), count)]


def _to_load_phase(
    outcome: Outcome, rate: float, duration: float, cpu_seconds: float, elapsed: float
) -> LoadPhase:
    measured = [each for each in outcome.accepted if WARMUP <= each.seconds < duration]
    latencies = [each.latency for each in measured]
    answers = len(outcome.accepted) + len(outcome.refused)
    return LoadPhase(
        offered=rate,
        goodput=len(measured) / (duration - WARMUP),
        per_cpu_second=len(outcome.accepted) / cpu_seconds if cpu_seconds else nan,
        refused=len(outcome.refused) / answers if answers else nan,
        rejection_p50=percentile([each.latency for each in outcome.refused], 50),
        slowest_rejection=max((each.latency for each in outcome.refused), default=nan),
        p50=percentile(latencies, 50),
        p99=percentile(latencies, 99),
        server=cpu_seconds / elapsed,
        generator=outcome.cpu_seconds / elapsed,
        late=outcome.max_delay,
    )


def _to_disturbed_phase(tally: Tally) -> DisturbedPhase:
    return DisturbedPhase(
        tally.rate("place"), tally.percentile("place", 50), tally.percentile("place", 99)
    )


def _searches() -> list[Request]:
    """Return different searches, so that no cache answers them."""
    queries = ({"facets": "category,options,tag", "min_price": price} for price in range(1, 2000))
    return [Request("search", request_bytes("GET", f"/products?{urlencode(q)}")) for q in queries]


def _scrapes() -> list[Request]:
    return [Request("scrape", request_bytes("GET", "/metrics"))]


def _prepare(url: str, folder: Path, options: Options, loop: Loop) -> Shop:
    """Create products and customers without rate limits.

    The access tokens stay valid when the application restarts with rate limits.
    """
    _print_progress(f"preparing {options.catalogue:,} products, {options.customers} customers ...")
    shop = Shop(admin_password="correct horse battery overload")
    with _application(url, folder, rate_limits="off") as server:
        loop.do(shop.stock(server.port, options.products))
        loop.do(shop.register(server.port, options.customers))
        loop.do(shop.log_in(server.port))
    command = ("demo", "--products", str(options.catalogue))
    environ = _settings(url, folder, rate_limits="off")
    servers.run("markethall", *command, log=folder / "demo.log", environ=environ)
    return shop


@contextmanager
def _application(url: str, folder: Path, rate_limits: str) -> Iterator[Server]:
    environ = _settings(url, folder, rate_limits)
    log_file = folder / "application.log"
    with servers.serving("markethall", "serve", log=log_file, environ=environ) as server:
        server.wait("/ready", 120)
        yield server


def _settings(url: str, folder: Path, rate_limits: str) -> dict[str, str]:
    return {
        "MARKETHALL_DATABASE_URL": url,
        "MARKETHALL_DATA_DIR": str(folder / "application"),
        "MARKETHALL_RATE_LIMITS": rate_limits,
        "MARKETHALL_ADMIN_EMAIL": ADMIN,
        "MARKETHALL_ADMIN_PASSWORD": "correct horse battery overload",
        "MARKETHALL_BCRYPT_COST": "4",
        "MARKETHALL_TOKEN_TTL": "3600",
        # high limits, because a few customers place many orders
        "MARKETHALL_MAX_UNPAID_ORDERS_PER_CUSTOMER": "100000",
        "MARKETHALL_MAX_RESERVED_UNITS_PER_CUSTOMER": "100000",
        "MARKETHALL_LOG_FORMAT": "json",
    }


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
