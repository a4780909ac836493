"""Measures a large catalogue: cached and uncached reads, searches, and deep pages.

Reads are compared with the baselines. All servers run on one core and alternate in each round, so
that noise affects all of them equally. The baseline of an uncached read executes the same SQL
statement and responds with its result.
"""

import http.client
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from markethall.schema_migrations import upgrade

from . import servers, tables
from .catalogue_lists import FAMILY_LISTS, SORTS, searches
from .client import Request, Tally, call_all, load, repeat, request_bytes
from .loop import Loop
from .servers import OTHERS, Server, Ticks
from .shop import PAGE, fetch

WARMUP: Final = 1.0
READERS: Final = 16
PRODUCTS_READ: Final = 2000  # the number of different products that are read
FAMILIES_READ: Final = 700  # families, with about the same number of products
PAGE_SIZE: Final = 100  # products per page on the way to a deep page
DEEP_READS: Final = 200  # reads of each of the two pages: the first and the deep one
HEADER: Final = (
    *("measure", "application /s", "bare /s", "ratio", "by round", "cpu ratio", "p50 ms", "p99 ms"),
    *("n", "goal"),
)
SEARCH_HEADER: Final = (
    *("search", "connections", "p50 ms", "p99 ms", "max ms", "n", "distinct queries"),
)
DEEP_HEADER: Final = ("list", "items before it", "first p50 ms", "deep p50 ms", "deep / first")
# maps each measure to its baseline and to the target: a share of the baseline's rate
GOALS: Final[Mapping[str, tuple[str, float]]] = {
    "product, cached": ("raw, product", 0.45),
    "page of 20, cached": ("raw, page", 0.45),
    "304, cached": ("raw, product", 0.45),
    "product, uncached": ("same statement, product", 0.6),
    "page of 20, uncached": ("same statement, page", 0.7),
    "family, cached": ("raw, family", 0.45),
    "family, uncached": ("same statement, family", 0.5),
}
# a family of the generated catalogue has about three products
PRODUCTS_PER_FAMILY: Final = 3


@dataclass(frozen=True)
class Options:
    """`rounds` phases of `seconds` each; `depth` is the number of products before a deep page."""

    products: int = 100_000
    seconds: float = 2
    rounds: int = 5
    depth: int = 50_000


class Phase(NamedTuple):
    """One phase of one server. `cpu_us` is the CPU time of its process per response."""

    rate: float
    cpu_us: float


@dataclass
class CatalogueResult:
    """The phases and latencies of each measure, and the latencies of searches and pages."""

    options: Options
    phases: dict[str, list[Phase]] = field(default_factory=dict)
    latencies: dict[str, list[float]] = field(default_factory=dict)
    # times, number of different queries, connections
    searches: dict[str, tuple[list[float], int, int]] = field(default_factory=dict)
    deep: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    foreign: float = 0.0

    def ratios(self, measure: str) -> list[Phase]:
        """Return the ratios of the application to the baseline, one per round.

        In a ratio, `cpu_us` is the CPU time of the baseline divided by that of the application.
        """
        bare, _ = GOALS[measure]
        pairs = zip(self.phases[measure], self.phases[bare], strict=True)
        return [Phase(own.rate / base.rate, base.cpu_us / own.cpu_us) for own, base in pairs]

    def text(self) -> str:
        return "\n".join(tables.text(rows) for rows in self._tables()) + self._remarks()

    def markdown(self) -> str:
        return "\n".join(tables.markdown(rows) for rows in self._tables()) + self._remarks("- ")

    def write(self) -> None:
        """Write results/catalogue.json."""
        tables.write(
            "catalogue",
            {
                "options": asdict(self.options),
                "foreign": self.foreign,
                "ratios": {name: median(item.rate for item in self.ratios(name)) for name in GOALS},
                "rates": {
                    name: [phase.rate for phase in phases] for name, phases in self.phases.items()
                },
                **{
                    f"search_p{percent}_ms": {
                        name: _percentile(times, percent)
                        for name, (times, *_) in self.searches.items()
                    }
                    for percent in (50, 99)
                },
                "deep": {name: deep / first for name, (_, first, deep) in self.deep.items()},
                "failures": dict(self.failures),
            },
        )

    def _tables(self) -> Iterator[tables.Rows]:
        yield [HEADER, *map(self._row, GOALS)]
        yield [SEARCH_HEADER, *(_search_row(name, *item) for name, item in self.searches.items())]
        yield [DEEP_HEADER, *(_deep_row(name, *item) for name, item in self.deep.items())]

    def _row(self, measure: str) -> tuple[str, ...]:
        (bare, target), ratios = GOALS[measure], self.ratios(measure)
        cached, base = (median(item.rate for item in self.phases[name]) for name in (measure, bare))
        rates = [item.rate for item in ratios]
        times = self.latencies[measure]
        reached = "reached" if median(rates) >= target else "missed"
        return (
            *(measure, f"{cached:,.0f}", f"{base:,.0f}", f"{median(rates):.0%}"),
            f"{min(rates):.0%}-{max(rates):.0%}",
            f"{median(item.cpu_us for item in ratios):.0%}",
            *(f"{_percentile(times, percent):.2f}" for percent in (50, 99)),
            *(str(len(times)), f">= {target:.0%}: {reached}"),
        )

    def _remarks(self, bullet: str = "") -> str:
        lines = [
            (f"{self.options.products:,} products, {READERS} readers; searches are uncached"),
            tables.machine_line(),
            f"other programs used {self.foreign:.0%} of the cores",
            *(f"FAILED, {message}: {times}" for message, times in self.failures.items()),
        ]
        return "\n" + "\n".join(bullet + line for line in lines) + "\n"


def _search_row(name: str, times: list[float], distinct: int, connections: int) -> tuple[str, ...]:
    figures = (f"{_percentile(times, percent):.1f}" for percent in (50, 99, 100))
    return (name, str(connections), *figures, str(len(times)), str(distinct))


def _deep_row(name: str, before: int, first: float, deep: float) -> tuple[str, ...]:
    return (name, f"{before:,}", f"{first:.2f}", f"{deep:.2f}", f"{deep / first:.2f}x")


def _percentile(times: Sequence[float], percent: float) -> float:
    """Return the percentile, by the nearest-rank method."""
    ordered = sorted(times)
    return ordered[ceil(len(ordered) * percent / 100) - 1] if ordered else float("nan")


def measure(options: Options, folder: Path) -> CatalogueResult:
    """Run the measurement. Raises StartFailed."""
    result = CatalogueResult(options)
    database = servers.database(folder / "database")
    with servers.pinned(OTHERS), closing(Loop()) as loop, database as url:
        upgrade(url)
        _fill(url, folder, options.products)
        before = Ticks.now()
        with _servers(url, folder, loop) as bench:
            bench.reads(result)
            bench.searches(result)
            bench.deep(result)
            # measured before the processes end: afterwards their CPU time would count as foreign
            result.foreign = Ticks.now().foreign(before)
    return result


def _fill(url: str, folder: Path, products: int) -> None:
    _print_progress(f"preparing {products:,} products ...")
    command = ("demo", "--products", str(products))
    servers.run("markethall", *command, log=folder / "demo.log", environ=_settings(url, folder))


def _settings(url: str, folder: Path) -> dict[str, str]:
    return {
        "MARKETHALL_DATABASE_URL": url,
        "MARKETHALL_DATA_DIR": str(folder / "application"),
        "MARKETHALL_RATE_LIMITS": "off",
        "MARKETHALL_LOG_FORMAT": "json",
    }


@contextmanager
def _servers(url: str, folder: Path, loop: Loop) -> Iterator["_CatalogueBench"]:
    settings = _settings(url, folder)
    with ExitStack() as stack:
        cached, uncached = (
            stack.enter_context(
                servers.serving(
                    "markethall",
                    "serve",
                    log=folder / f"cache-{cache}.log",
                    environ=settings | {"MARKETHALL_CACHE": cache},
                )
            )
            for cache in ("on", "off")
        )
        for server in (cached, uncached):
            server.wait("/ready", 120)
        paths = loop.do(_products(cached.port))
        families = loop.do(_families(cached.port))
        bare = {}
        for name, path in (("product", paths[0]), ("page", PAGE), ("family", families[0])):
            body = folder / f"{name}.json"
            [answer] = loop.do(call_all(cached.port, [_get(path)], concurrency=1))
            body.write_bytes(answer.body)
            bare[f"raw, {name}"] = stack.enter_context(
                servers.serving(
                    *("bench.baselines", "raw", "--body", str(body)),
                    log=folder / "raw.log",
                    environ={},
                )
            )
        dsn = url.replace("postgresql+asyncpg:", "postgresql:")
        same = stack.enter_context(
            servers.serving(
                *("bench.baselines", "same"),
                log=folder / "same.log",
                environ={"BENCH_DATABASE_URL": dsn},
            )
        )
        for server in (*bare.values(), same):
            server.wait(PAGE)
        yield _CatalogueBench(loop, cached, uncached, same, bare, paths, families)


async def _products(port: int) -> list[str]:
    """Return the paths of some products in random order."""
    return await _paths(port, "/products", "product_id", PRODUCTS_READ)


async def _families(port: int) -> list[str]:
    """Return the paths of some families in random order."""
    return await _paths(port, "/families", "slug", FAMILIES_READ)


async def _paths(port: int, path: str, key: str, count: int) -> list[str]:
    walk = _walk(port, path, {}, count)
    result = [f"{path}/{quote(item[key])}" async for items, _ in walk for item in items]
    Random(7).shuffle(result)
    return result


async def _walk(port: int, path: str, query: Mapping[str, str], depth: int) -> Any:
    """Yield pages and the cursors after them, until `depth` items or the end of the list."""
    count, cursor = 0, None
    while count < depth:
        target = {**query, "limit": str(PAGE_SIZE), **({"cursor": cursor} if cursor else {})}
        page = await fetch(port, f"{path}?{urlencode(target)}")
        count, cursor = count + len(page["items"]), page["next_cursor"]
        yield page["items"], cursor
        if cursor is None:
            return


@dataclass(frozen=True)
class _CatalogueBench:
    """The measured servers, and the methods that measure them."""

    loop: Loop
    cached: Server
    uncached: Server
    same: Server
    bare: Mapping[str, Server]
    paths: Sequence[str]
    families: Sequence[str]

    def reads(self, result: CatalogueResult) -> None:
        phases = self._phases()
        for number in range(-1, result.options.rounds):
            _print_progress(f"round {number + 1} of {result.options.rounds}")
            # the first round is a warm-up
            target_result = result if number >= 0 else CatalogueResult(result.options)
            for name, (server, requests) in phases.items():
                self._phase(name, server, requests, target_result)

    def _phases(self) -> Mapping[str, tuple[Server, Sequence[Request]]]:
        products, page = [_get(path) for path in self.paths], [_get(PAGE)]
        families = [_get(path) for path in self.families]
        tags = {path: _etag(self.cached.port, path) for path in (*self.paths[:100], PAGE)}
        conditional = [_get(path, if_none_match=tag) for path, tag in tags.items()]
        return {
            "raw, product": (self.bare["raw, product"], products),
            "product, cached": (self.cached, products),
            "304, cached": (self.cached, conditional),
            "raw, page": (self.bare["raw, page"], page),
            "page of 20, cached": (self.cached, page),
            "same statement, product": (self.same, products),
            "product, uncached": (self.uncached, products),
            "same statement, page": (self.same, page),
            "page of 20, uncached": (self.uncached, page),
            "raw, family": (self.bare["raw, family"], families),
            "family, cached": (self.cached, families),
            "same statement, family": (self.same, families),
            "family, uncached": (self.uncached, families),
        }

    def _phase(
        self, name: str, server: Server, requests: Sequence[Request], result: CatalogueResult
    ) -> None:
        tally, before = Tally(), Ticks.now(server.process.pid)
        scripts, seconds = repeat(requests, READERS), result.options.seconds
        self.loop.do(load(server.port, scripts, tally, WARMUP, seconds))
        cpu_seconds = Ticks.now(server.process.pid).seconds(before)
        kind = requests[0].kind
        phase = Phase(tally.rate(kind), cpu_seconds * 1e6 / max(tally.answered[kind], 1))
        result.phases.setdefault(name, []).append(phase)
        times = result.latencies.setdefault(name, [])
        times += [latency * 1000 for latency in tally.latencies[kind]]
        result.failures.update({f"{name}, {item}": n for item, n in tally.failures.items()})

    def searches(self, result: CatalogueResult) -> None:
        for name, search in searches(result.options.products).items():
            _print_progress(name)
            tally = Tally()
            scripts = repeat([_get(path) for path in search.paths], search.connections)
            seconds = 2 * result.options.seconds
            self.loop.do(load(self.uncached.port, scripts, tally, WARMUP, seconds))
            result.searches[name] = (
                [item * 1000 for item in tally.latencies["GET"]],
                len(set(search.paths)),
                search.connections,
            )
            result.failures.update({f"{name}, {item}": n for item, n in tally.failures.items()})

    def deep(self, result: CatalogueResult) -> None:
        for name, query in SORTS.items():
            _print_progress(f"deep page: {name}")
            result.deep[name] = self.loop.do(self._deep("/products", query, result.options.depth))
        for name, query in FAMILY_LISTS.items():
            _print_progress(f"deep page: {name}")
            depth = result.options.depth // PRODUCTS_PER_FAMILY
            result.deep[name] = self.loop.do(self._deep("/families", query, depth))

    async def _deep(
        self, path: str, query: Mapping[str, str], depth: int
    ) -> tuple[int, float, float]:
        before, last = 0, ""
        async for items, cursor in _walk(self.uncached.port, path, query, depth):
            if cursor is None:
                break
            before, last = before + len(items), cursor
        first, deep = (
            _get(f"{path}?{urlencode({**query, **index})}") for index in ({}, {"cursor": last})
        )
        tally = Tally(opens=0)
        await load(self.uncached.port, lambda _: [_alternate(first, deep)], tally, 0, 30)
        at_first, at_deep = (median(tally.latencies[kind]) * 1000 for kind in ("first", "deep"))
        return before, at_first, at_deep


def _alternate(first: Request, deep: Request) -> Any:
    for _ in range(DEEP_READS):
        yield first._replace(kind="first")
        yield deep._replace(kind="deep")


def _etag(port: int, path: str) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path)
        return connection.getresponse().headers["etag"]


def _get(path: str, **headers: str) -> Request:
    return Request("GET", request_bytes("GET", path, **headers))


def _print_progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
