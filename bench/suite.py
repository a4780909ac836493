"""The part `app`: measures the application and the baselines on an empty database."""

import json
import os
import secrets
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

from . import baselines, servers
from .client import Request, Scripts, Tally, load, repeat, request_bytes
from .hand_written import tables as hand_written
from .hand_written.books import find_violations
from .hand_written.tokens import TokenSigner
from .loop import Loop
from .report import HAND_WRITTEN, PURCHASE, RAW, SQL_ONE, SQL_PAGE, Figure, Report
from .servers import OTHERS, SERVER, SETTLE_TIMEOUT_SECONDS, Server, Ticks, settle
from .shop import ADMIN, PAGE, Shop, fetch, fetch_bodies, fetch_statement_count

# a login may get 503, because the queue for password hashes is bounded
TOLERATED = {"login": frozenset({503})}
UNLIMITED_STOCK = 10_000_000  # units per product; more than a run can sell
START_PATHS = ["/health", "/ready", PAGE]  # paths for which the time to the first 200 is measured


@dataclass(frozen=True)
class Options:
    """`readers` and `buyers` list the numbers of concurrent connections to measure."""

    seconds: float = 4
    warmup: float = 1
    readers: tuple[int, ...] = (1, 16, 64)
    buyers: tuple[int, ...] = (1, 8, 32)
    products: int = 1000
    customers: int = 64
    requests: int = 200_000
    starts: int = 3
    twice: bool = True
    baselines_only: bool = False
    database_url: str | None = None


class Scenario(NamedTuple):
    """A row of the report. `kind` is the counted kind of requests."""

    name: str
    kind: str
    concurrency: int


@dataclass(frozen=True)
class Sample:
    """Response bodies of the application; the baselines send the same bodies."""

    products: dict[UUID, str]
    list_items: dict[UUID, str]


class Suite:
    """Runs the benchmark in `folder` and adds the figures to `report`."""

    def __init__(self, options: Options, folder: Path, report: Report) -> None:
        self._options, self._folder, self._report = options, folder, report
        self._shop = Shop(admin_password=_load_or_create_password(folder / "admin-password"))
        self._loop = Loop()

    def run(self) -> None:
        """Run all measurements. Raises StartFailed or Refused if the application fails."""
        started = Ticks.now()
        with servers.pinned(OTHERS), closing(self._loop), self._database() as url:
            if self._options.baselines_only:
                self._baselines(url, _generate_sample(self._options.products))
            else:
                self._run_all(url)
        self._report.notes.append(
            f"CPU time stolen by the hypervisor: {Ticks.now().stolen(started):.1%}"
        )

    def _run_all(self, url: str) -> None:
        # the URL is passed in the environment, not as an argument, because it contains a password
        servers.run(
            "markethall",
            "migrate",
            log=self._log("migrate"),
            environ=self._settings("application", url),
        )
        sample = self._prepare(url)
        self._baselines(url, sample)
        self._cached(url)
        self._uncached(url)
        if self._options.twice:
            self._baselines(url, sample)
        self._cold_starts()

    def _database(self) -> AbstractContextManager[str]:
        if self._options.database_url:
            self._report.notes.append("external database: its CPU use is unknown")
            return nullcontext(self._options.database_url)
        return servers.database(self._folder / "database")

    def _prepare(self, url: str) -> Sample:
        with self._application(url) as server:
            _print_progress(f"preparing {self._options.products} products ...")
            self._loop.do(self._shop.stock(server.port, self._options.products))
            _print_progress(f"preparing {self._options.customers} customers ...")
            self._loop.do(self._shop.register(server.port, self._options.customers))
            return self._loop.do(_fetch_sample(server.port, self._shop.products()))

    def _baselines(self, url: str, sample: Sample) -> None:
        body = self._folder / "product.json"
        body.write_text(_median(list(sample.products.values())))
        paths = [f"/products/{product_id}" for product_id in sample.products]
        reads = [Request("product", request_bytes("GET", path)) for path in paths]
        page = [Request("page", request_bytes("GET", PAGE))]
        with self._baseline("raw", "--body", str(body)) as server:
            self._reads(server, RAW, reads)
        dsn = url.replace("postgresql+asyncpg:", "postgresql:")
        self._loop.do(baselines.fill(dsn, sample.products, sample.list_items))
        with self._baseline("sql", BENCH_DATABASE_URL=dsn) as server:
            self._reads(server, SQL_ONE, reads)
            self._reads(server, SQL_PAGE, page)
        with self._baseline("purchase", BENCH_DATABASE_URL=dsn) as server:
            buyers = [f"customer {number}" for number in range(self._options.customers)]
            self._purchases(server, PURCHASE, list(sample.products), buyers)
        self._loop.do(baselines.clear(dsn))
        self._hand_written(dsn, list(sample.products))

    def _hand_written(self, dsn: str, product_ids: list[UUID]) -> None:
        """Measure the purchase with the same guarantees, and check its rows."""
        signer, customer_ids = TokenSigner(), [uuid4() for _ in range(self._options.customers)]
        self._loop.do(hand_written.create_tables(dsn, product_ids, customer_ids, UNLIMITED_STOCK))
        key = signer.public_key.decode()
        with self._baseline("hand-written", BENCH_DATABASE_URL=dsn, BENCH_PUBLIC_KEY=key) as server:
            buyers = [signer.sign(customer_id) for customer_id in customer_ids]
            self._purchases(server, HAND_WRITTEN, product_ids, buyers)
            violations = self._loop.do(find_violations(dsn))
        for check, count in violations.items():
            self._report.failures[f"{HAND_WRITTEN}, wrong rows: {check}"] = count
        self._loop.do(hand_written.drop_tables(dsn))

    def _purchases(
        self, server: Server, name: str, product_ids: list[UUID], tokens: list[str]
    ) -> None:
        shop = Shop("", product_ids=[str(product_id) for product_id in product_ids], tokens=tokens)
        for customers in self._options.buyers:
            scenario = Scenario(name, "purchase", customers)
            self._measure(server, scenario, shop.buy(customers))

    def _cached(self, url: str) -> None:
        with self._application(url) as server:
            settle(server.process.pid)
            self._memory(server, "memory of the server, idle")
            self._record_idle_statements(server)
            self._loop.do(fetch_bodies(server.port, self._shop.products()))  # fill the cache
            self._reads(server, "product, cached", self._shop.products())
            self._reads(server, "page of 20, cached", self._shop.page())
            self._customers(server)
            self._memory(server, "memory of the server, after load")

    def _customers(self, server: Server) -> None:
        self._loop.do(self._shop.log_in(server.port))
        self._reads(server, "GET /users/me", self._shop.me())
        self._reads(server, "login (mostly bcrypt)", self._shop.logins())
        for customers in self._options.buyers:
            self._loop.do(self._shop.stay_logged_in(server.port))
            scripts = self._shop.place_orders(customers)
            self._measure(server, Scenario("place", "place", customers), scripts)
        for customers in self._options.buyers:
            self._loop.do(self._shop.stay_logged_in(server.port))
            scripts = self._shop.buy(customers)
            self._measure(server, Scenario("place + confirm", "purchase", customers), scripts)
        for customers in self._options.buyers:
            self._loop.do(self._shop.stay_logged_in(server.port))
            scripts = self._shop.buy_from_carts(customers)
            self._measure(server, Scenario("cart to payment", "cart purchase", customers), scripts)

    def _uncached(self, url: str) -> None:
        with self._application(url, MARKETHALL_CACHE="off") as server:
            self._reads(server, "product, uncached", self._shop.products())
            self._reads(server, "page of 20, uncached", self._shop.page())

    def _cold_starts(self) -> None:
        """Measure cold starts with an embedded database in a separate data directory."""
        exists = (self._folder / "cold").exists()  # whether an earlier run has used --data-dir
        name = "first start of this run" if exists else "first start, empty directory"
        with self._application(None, folder="cold") as server:
            self._report_start(name, server.wait("/ready", 120))
            self._loop.do(Shop(self._shop.admin_password).stock(server.port, 20))
        starts = [self._cold_start() for _ in range(self._options.starts)]
        foreign = max(foreign_share for _, foreign_share in starts)
        for path in START_PATHS:
            median_seconds = statistics.median(
                seconds_by_path[path] for seconds_by_path, _ in starts
            )
            self._report_start(f"cold start to {path.partition('?')[0]}", median_seconds, foreign)
        with self._application(None, folder="cold") as server:
            settle(server.process.pid)
            self._memory(server, "memory of the server, idle, embedded database")

    def _cold_start(self) -> tuple[dict[str, float], float]:
        """Return the seconds to the first 200 of each path, and the CPU share of other programs."""
        settings, before = self._settings("cold", None), Ticks.now()
        with servers.serving(
            "markethall", "serve", log=self._log("cold"), environ=settings
        ) as server:
            seconds_by_path = server.wait_all(START_PATHS)
            return seconds_by_path, Ticks.now().foreign(before)

    def _report_start(self, name: str, seconds: float, foreign: float = nan) -> None:
        self._show(Figure(name, seconds, "s", foreign=foreign))

    def _reads(self, server: Server, name: str, requests: Sequence[Request]) -> None:
        for readers in self._options.readers:
            scenario = Scenario(name, requests[0].kind, readers)
            self._measure(server, scenario, repeat(requests, readers))

    def _measure(self, server: Server, scenario: Scenario, scripts: Scripts) -> None:
        options = self._options
        tally = Tally(limit=options.requests, tolerated=TOLERATED.get(scenario.kind, frozenset()))
        count_before, before = (
            self._loop.do(fetch_statement_count(server.port)),
            Ticks.now(server.process.pid),
        )
        self._loop.do(load(server.port, scripts, tally, options.warmup, options.seconds))
        after, remaining = Ticks.now(server.process.pid), settle(server.process.pid)
        # count also the statements and the CPU time after the last response
        settled, count_after = (
            Ticks.now(server.process.pid),
            self._loop.do(fetch_statement_count(server.port)),
        )
        statement_count = (
            None if count_before is None or count_after is None else count_after - count_before
        )
        self._record_responses(scenario, tally)
        figure = _with_cores(_figure(scenario, tally, statement_count), before, after)
        figure = _with_cost(figure, tally.answered[scenario.kind], settled.seconds(before))
        self._show(self._with_sustained_rate(figure, remaining))

    def _record_responses(self, scenario: Scenario, tally: Tally) -> None:
        scenario_name = f"{scenario.name} at {scenario.concurrency}"
        for name, count in tally.failures.items():
            self._report.failures[f"{scenario_name}, {name}"] = count
        for name, count in tally.expected.items():
            self._report.expected[f"{scenario_name}, {name}"] = count

    def _show(self, figure: Figure) -> None:
        self._report.add(figure)
        concurrency = f" at {figure.concurrency}" if figure.concurrency else ""
        _print_progress(f"{figure.name}{concurrency}: {figure.value:,.2f} {figure.unit}")

    def _memory(self, server: Server, name: str) -> None:
        self._show(Figure(name, servers.rss(server.process.pid), "MB"))
        children = servers.descendants(server.process.pid)
        if children:
            names = ", ".join(sorted({servers.command_name(child) for child in children}))
            megabytes = sum(servers.rss(child) for child in children)
            title = f"  its {len(children)} children ({names}), shared pages counted in each"
            self._show(Figure(title, megabytes, "MB"))

    def _record_idle_statements(self, server: Server) -> None:
        before = self._loop.do(fetch_statement_count(server.port))
        time.sleep(2)
        after = self._loop.do(fetch_statement_count(server.port))
        if before is not None and after is not None:
            self._report.notes.append(f"statements while idle: {(after - before) / 2:.1f}/s")

    def _with_sustained_rate(self, figure: Figure, remaining: float) -> Figure:
        """Add the sustained rate, which includes the `remaining` seconds of work after the load."""
        if remaining <= 0.5:
            return figure
        duration = self._options.warmup + self._options.seconds
        sustained = figure.value * duration / (duration + remaining)
        prefix = "more than " if remaining >= SETTLE_TIMEOUT_SECONDS else ""
        remark = f"{prefix}{remaining:.1f} s of work remained after it"
        self._report.notes.append(
            f"{figure.name} at {figure.concurrency}: {remark}, {sustained:.0f}/s"
        )
        return replace(figure, sustained=sustained)

    @contextmanager
    def _application(
        self, url: str | None, folder: str = "application", **overrides: str
    ) -> Iterator[Server]:
        settings = self._settings(folder, url) | overrides
        with servers.serving(
            "markethall", "serve", log=self._log(folder), environ=settings
        ) as server:
            server.wait("/ready", 120)
            yield server

    @contextmanager
    def _baseline(self, name: str, *args: str, **environ: str) -> Iterator[Server]:
        log = self._log(name)
        with servers.serving("bench.baselines", name, *args, log=log, environ=environ) as server:
            server.wait(PAGE)
            yield server

    def _settings(self, folder: str, url: str | None) -> dict[str, str]:
        settings = {
            "MARKETHALL_DATA_DIR": str(self._folder / folder),
            "MARKETHALL_RATE_LIMITS": "off",
            "MARKETHALL_LOG_FORMAT": "json",
            "MARKETHALL_ADMIN_EMAIL": ADMIN,
            "MARKETHALL_ADMIN_PASSWORD": self._shop.admin_password,
            # high limits, because each customer places many orders
            "MARKETHALL_MAX_UNPAID_ORDERS_PER_CUSTOMER": "1000000",
            "MARKETHALL_MAX_RESERVED_UNITS_PER_CUSTOMER": "1000000",
        }
        return settings | ({"MARKETHALL_DATABASE_URL": url} if url else {})

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def _figure(scenario: Scenario, tally: Tally, statement_count: float | None) -> Figure:
    kind, answered = scenario.kind, tally.answered[scenario.kind]
    return Figure(
        scenario.name,
        tally.rate(kind),
        concurrency=scenario.concurrency,
        p50_ms=tally.percentile(kind, 50) * 1000,
        p95_ms=tally.percentile(kind, 95) * 1000,
        p99_ms=tally.percentile(kind, 99) * 1000,
        samples=len(tally.latencies[kind]),
        statements=statement_count / answered if statement_count is not None and answered else None,
    )


def _with_cost(figure: Figure, answered: int, seconds: float) -> Figure:
    return replace(figure, per_cpu_second=answered / seconds if seconds else nan)


def _with_cores(figure: Figure, before: Ticks, after: Ticks) -> Figure:
    return replace(
        figure,
        busy_server=after.busy(before, SERVER),
        busy_others=after.busy(before, OTHERS),
        foreign=after.foreign(before),
    )


async def _fetch_sample(port: int, reads: Sequence[Request]) -> Sample:
    """Return the body of every product, and the bodies of list items."""
    texts = [body.decode() for body in await fetch_bodies(port, reads)]
    products = {UUID(json.loads(text)["product_id"]): text for text in texts}
    items = (await fetch(port, PAGE))["items"]
    list_items = [json.dumps(item, separators=(",", ":"), ensure_ascii=False) for item in items]
    # the items of one page are repeated, because only their size matters
    return Sample(
        products,
        {
            product_id: list_items[index % len(list_items)]
            for index, product_id in enumerate(products)
        },
    )


def _generate_sample(products: int) -> Sample:
    """Return bodies of similar form and size, for runs without the application."""
    ids = [UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0000 + index) for index in range(products)]
    list_item = '{"product_id":"%s","sku":"BENCH-00001","name":"Market apron no. 1","price":'
    list_item += '{"amount":1001,"currency":"EUR"},"status":"active","available":1000000'
    text = list_item + ',"description":"%s","tags":["apron","cotton","market"],"version":1}'
    description = "Heavy cotton, two pockets, washes at sixty degrees. " * 4
    return Sample(
        {product_id: text % (product_id, description) for product_id in ids},
        {product_id: list_item % product_id + "}" for product_id in ids},
    )


def _median(texts: list[str]) -> str:
    return sorted(texts, key=len)[len(texts) // 2]


def _load_or_create_password(path: Path) -> str:
    """Return the password of the data directory; the file is created at the first call."""
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(18))
    return path.read_text()


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
