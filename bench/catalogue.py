"""A large catalogue: cached and uncached reads beside the bare apps, searches, and deep pages.

All servers are up at once, on one core, and take turns, round after round: what disturbs the
machine disturbs all of them. The bare app of an uncached read sends the very statement that ours
sends, and answers what it brings.
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
from urllib.parse import urlencode

from markethall.local.demo.generate_products import generate_products
from markethall.local.demo.vocabulary import CATEGORIES
from markethall.schema_migrations import upgrade
from markethall.shared.persistence.postgres_url import asyncpg_url

from . import servers, tables
from .client import Request, Tally, call_all, endless, load, request_bytes
from .loop import Loop
from .servers import OTHERS, Server, Ticks
from .shop import PAGE, fetch

WARMUP: Final = 1.0
READERS: Final = 16
SEARCHERS: Final = 4
READ: Final = 2000  # products that are read in turn
STEP: Final = 100  # products of a page on the way down
LOOKS: Final = 200  # at the first page and at the deep one, by turns
HEADER: Final = (
    *("measure", "ours /s", "bare /s", "ratio", "by round", "cpu ratio", "p50 ms", "p99 ms"),
    *("n", "goal"),
)
SEARCH_HEADER: Final = ("search", "p50 ms", "p99 ms", "most ms", "n", "different")
DEEP_HEADER: Final = ("list", "products before it", "first p50 ms", "deep p50 ms", "deep / first")
# ours, what it is held against, and the share of it that is the goal
GOALS: Final[Mapping[str, tuple[str, float]]] = {
    "product, cached": ("raw, product", 0.45),
    "page of 20, cached": ("raw, page", 0.45),
    "304, cached": ("raw, product", 0.45),
    "product, uncached": ("same statement, product", 0.6),
    "page of 20, uncached": ("same statement, page", 0.7),
}
SORTS: Final[Mapping[str, Mapping[str, str]]] = {
    "newest first": {},
    "by name": {"sort": "name"},
    "by price": {"sort": "price"},
    "dearest first": {"sort": "-price"},
    "of a category, by price": {"category": "clothing", "sort": "price"},
    "of a tag": {"tag": "sale"},
    "found by a word, by relevance": {"q": "jacket"},
}


@dataclass(frozen=True)
class Options:
    """`rounds` phases of `seconds` each; `depth` products come before a deep page."""

    products: int = 100_000
    seconds: float = 2
    rounds: int = 5
    depth: int = 50_000


class Phase(NamedTuple):
    """One phase of one server; `cpu_us`: of its process, per answer."""

    rate: float
    cpu_us: float


@dataclass
class Found:
    """Phases and latencies by measure, latencies by search, and milliseconds by list."""

    options: Options
    phases: dict[str, list[Phase]] = field(default_factory=dict)
    latencies: dict[str, list[float]] = field(default_factory=dict)
    searches: dict[str, tuple[list[float], int]] = field(default_factory=dict)
    deep: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    foreign: float = 0.0

    def ratios(self, measure: str) -> list[Phase]:
        """Of the baseline, round by round."""
        bare, _ = GOALS[measure]
        pairs = zip(self.phases[measure], self.phases[bare], strict=True)
        return [Phase(our.rate / its.rate, its.cpu_us / our.cpu_us) for our, its in pairs]

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
                "ratios": {name: median(it.rate for it in self.ratios(name)) for name in GOALS},
                "rates": {
                    name: [phase.rate for phase in phases] for name, phases in self.phases.items()
                },
                "search_p99_ms": {
                    name: _percentile(times, 99) for name, (times, _) in self.searches.items()
                },
                "deep": {name: deep / first for name, (_, first, deep) in self.deep.items()},
                "failures": dict(self.failures),
            },
        )

    def _tables(self) -> Iterator[tables.Rows]:
        yield [HEADER, *map(self._row, GOALS)]
        yield [SEARCH_HEADER, *(_search_row(name, *it) for name, it in self.searches.items())]
        yield [DEEP_HEADER, *(_deep_row(name, *it) for name, it in self.deep.items())]

    def _row(self, measure: str) -> tuple[str, ...]:
        (bare, wanted), ratios = GOALS[measure], self.ratios(measure)
        ours, its = (median(it.rate for it in self.phases[name]) for name in (measure, bare))
        rates = [it.rate for it in ratios]
        times = self.latencies[measure]
        reached = "reached" if median(rates) >= wanted else "missed"
        return (
            *(measure, f"{ours:,.0f}", f"{its:,.0f}", f"{median(rates):.0%}"),
            f"{min(rates):.0%}-{max(rates):.0%}",
            f"{median(it.cpu_us for it in ratios):.0%}",
            *(f"{_percentile(times, percent):.2f}" for percent in (50, 99)),
            *(str(len(times)), f">= {wanted:.0%}: {reached}"),
        )

    def _remarks(self, bullet: str = "") -> str:
        lines = [
            f"{self.options.products:,} products, {READERS} readers; {SEARCHERS} search, uncached",
            tables.machine_line(),
            f"others used {self.foreign:.0%} of the cores meanwhile",
            *(f"FAILED, {what}: {times}" for what, times in self.failures.items()),
        ]
        return "\n" + "\n".join(bullet + line for line in lines) + "\n"


def _search_row(name: str, times: list[float], different: int) -> tuple[str, ...]:
    figures = (_percentile(times, percent) for percent in (50, 99, 100))
    return (name, *(f"{figure:.1f}" for figure in figures), str(len(times)), str(different))


def _deep_row(name: str, before: int, first: float, deep: float) -> tuple[str, ...]:
    return (name, f"{before:,}", f"{first:.2f}", f"{deep:.2f}", f"{deep / first:.2f}x")


def _percentile(times: Sequence[float], percent: float) -> float:
    """Nearest rank."""
    ordered = sorted(times)
    return ordered[ceil(len(ordered) * percent / 100) - 1] if ordered else float("nan")


def measure(options: Options, folder: Path) -> Found:
    """Raises StartFailed."""
    found = Found(options)
    database = servers.database(folder / "database")
    with servers.pinned(OTHERS), closing(Loop()) as loop, database as url:
        upgrade(asyncpg_url(url))
        _fill(url, folder, options.products)
        before = Ticks.now()
        with _servers(url, folder, loop) as hall:
            hall.reads(found)
            hall.searches(found)
            hall.deep(found)
            # while they live: what has ended is no longer counted as ours
            found.foreign = Ticks.now().foreign(before)
    return found


def _fill(url: str, folder: Path, products: int) -> None:
    _say(f"preparing {products:,} products ...")
    command = ("demo", "--products", str(products))
    servers.run("markethall", *command, log=folder / "demo.log", environ=_settings(url, folder))


def _settings(url: str, folder: Path) -> dict[str, str]:
    return {
        "MARKETHALL_DATABASE_URL": url,
        "MARKETHALL_DATA_DIR": str(folder / "hall"),
        "MARKETHALL_RATE_LIMITS": "off",
        "MARKETHALL_LOG_FORMAT": "json",
    }


@contextmanager
def _servers(url: str, folder: Path, loop: Loop) -> Iterator["_Hall"]:
    settings = _settings(url, folder)
    with ExitStack() as stack:
        ours, uncached = (
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
        for server in (ours, uncached):
            server.wait("/ready", 120)
        paths = loop.do(_products(ours.port))
        bare = {}
        for name, path in (("product", paths[0]), ("page", PAGE)):
            body = folder / f"{name}.json"
            [answer] = loop.do(call_all(ours.port, [_get(path)], at_once=1))
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
        yield _Hall(loop, ours, uncached, same, bare, paths)


async def _products(port: int) -> list[str]:
    """Where some of the products are, in no particular order."""
    walk = _walk(port, {}, READ)
    found = [f"/products/{item['product_id']}" async for items, _ in walk for item in items]
    Random(7).shuffle(found)
    return found


async def _walk(port: int, query: Mapping[str, str], depth: int) -> Any:
    """Page by page, until so many products have been seen or there are no more."""
    seen, cursor = 0, None
    while seen < depth:
        wanted = {**query, "limit": str(STEP), **({"cursor": cursor} if cursor else {})}
        page = await fetch(port, f"/products?{urlencode(wanted)}")
        seen, cursor = seen + len(page["items"]), page["next_cursor"]
        yield page["items"], cursor
        if cursor is None:
            return


@dataclass(frozen=True)
class _Hall:
    """Those that are measured."""

    loop: Loop
    cached: Server
    uncached: Server
    same: Server
    bare: Mapping[str, Server]
    paths: Sequence[str]

    def reads(self, found: Found) -> None:
        plays = self._plays()
        for number in range(-1, found.options.rounds):
            _say(f"round {number + 1} of {found.options.rounds}")
            # the first one warms up
            into = found if number >= 0 else Found(found.options)
            for name, (server, requests) in plays.items():
                self._phase(name, server, requests, into)

    def _plays(self) -> Mapping[str, tuple[Server, Sequence[Request]]]:
        products, page = [_get(path) for path in self.paths], [_get(PAGE)]
        tags = {path: _etag(self.cached.port, path) for path in (*self.paths[:100], PAGE)}
        known = [_get(path, if_none_match=tag) for path, tag in tags.items()]
        return {
            "raw, product": (self.bare["raw, product"], products),
            "product, cached": (self.cached, products),
            "304, cached": (self.cached, known),
            "raw, page": (self.bare["raw, page"], page),
            "page of 20, cached": (self.cached, page),
            "same statement, product": (self.same, products),
            "product, uncached": (self.uncached, products),
            "same statement, page": (self.same, page),
            "page of 20, uncached": (self.uncached, page),
        }

    def _phase(self, name: str, server: Server, requests: Sequence[Request], found: Found) -> None:
        tally, before = Tally(), Ticks.now(server.process.pid)
        scripts, seconds = endless(requests, READERS), found.options.seconds
        self.loop.do(load(server.port, scripts, tally, WARMUP, seconds))
        spent = Ticks.now(server.process.pid).seconds(before)
        kind = requests[0].kind
        phase = Phase(tally.rate(kind), spent * 1e6 / max(tally.answered[kind], 1))
        found.phases.setdefault(name, []).append(phase)
        times = found.latencies.setdefault(name, [])
        times += [each * 1000 for each in tally.latencies[kind]]
        found.failures.update({f"{name}, {it}": n for it, n in tally.failures.items()})

    def searches(self, found: Found) -> None:
        for name, queries in _searches(found.options.products).items():
            _say(name)
            paths = [f"/products?{urlencode(query)}" for query in queries]
            tally = Tally()
            scripts = endless([_get(path) for path in paths], SEARCHERS)
            seconds = 2 * found.options.seconds
            self.loop.do(load(self.uncached.port, scripts, tally, WARMUP, seconds))
            found.searches[name] = [it * 1000 for it in tally.latencies["GET"]], len(set(paths))
            found.failures.update({f"{name}, {it}": n for it, n in tally.failures.items()})

    def deep(self, found: Found) -> None:
        for name, query in SORTS.items():
            _say(f"deep page: {name}")
            found.deep[name] = self.loop.do(self._deep(query, found.options.depth))

    async def _deep(self, query: Mapping[str, str], depth: int) -> tuple[int, float, float]:
        before, last = 0, ""
        async for items, cursor in _walk(self.uncached.port, query, depth):
            if cursor is None:
                break
            before, last = before + len(items), cursor
        first, deep = (
            _get(f"/products?{urlencode({**query, **at})}") for at in ({}, {"cursor": last})
        )
        tally = Tally(opens=0)
        await load(self.uncached.port, lambda _: [_by_turns(first, deep)], tally, 0, 30)
        at_first, far = (median(tally.latencies[kind]) * 1000 for kind in ("first", "deep"))
        return before, at_first, far


def _by_turns(first: Request, deep: Request) -> Any:
    for _ in range(LOOKS):
        yield first._replace(kind="first")
        yield deep._replace(kind="deep")


def _etag(port: int, path: str) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path)
        return connection.getresponse().headers["etag"]


def _get(path: str, **headers: str) -> Request:
    return Request("GET", request_bytes("GET", path, **headers))


def _searches(products: int) -> Mapping[str, Sequence[Mapping[str, str]]]:
    """What people look for, each in some words or values: no answer is known by heart."""
    rows = Random(11).sample([*generate_products(products)], min(200, products))
    nouns = sorted({row["name"].split(",")[0].split()[-1] for row in rows})
    makers = sorted({row["attributes"]["maker"] for row in rows})
    materials = sorted({row["attributes"]["material"].split()[-1] for row in rows})
    branches = list(CATEGORIES)
    pairs = [(maker, nouns[at % len(nouns)]) for at, maker in enumerate(makers)]
    prices = [row["price"]["amount"] for row in rows]
    return {
        "a word of names": [{"q": noun} for noun in nouns],
        "as one types it": [{"q": noun[:3]} for noun in nouns],
        "maker and noun": [{"q": f"{maker} {noun}"} for maker, noun in pairs],
        "a SKU": [{"q": row["sku"]} for row in rows],
        "mistyped": [{"q": _mistyped(noun)} for noun in nouns if len(noun) > 4],
        "a word of descriptions": [{"q": material} for material in materials],
        "a word of every second description": [{"q": "guaranteed"}, {"q": "made"}],
        "a word in a category": [
            {"q": noun, "category": branches[at % len(branches)]} for at, noun in enumerate(nouns)
        ],
        "a category": [{"category": name} for name in branches],
        "a category, in stock, by price": [
            {"category": name, "in_stock": "true", "sort": "price"} for name in branches
        ],
        "a tag": [{"tag": tag} for tag in sorted({tag for row in rows for tag in row["tags"]})],
        "a span of prices": [
            {"min_price": str(price), "max_price": str(price + 500)} for price in prices
        ],
        "a word, facets counted": [{"q": noun, "facets": "category,options,tag"} for noun in nouns],
        "everything, facets counted": [{"facets": "category,options,tag"}],
    }


def _mistyped(word: str) -> str:
    """Two letters in the wrong order."""
    at = len(word) // 2
    return word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :]


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
