"""One run from the empty database to the last figure: what is started and loaded, in order."""

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
from uuid import UUID

from . import baselines, servers
from .client import Request, Scripts, Tally, endless, load, request_bytes
from .loop import Loop
from .report import RAW, SQL_ONE, SQL_PAGE, Figure, Report
from .servers import OTHERS, PATIENCE, SERVER, Server, Ticks, settle
from .shop import ADMIN, PAGE, Shop, bodies, fetch, statements

# 503 is an honest answer when 64 ask for a password hash at once.
TOLERATED = {"login": frozenset({503})}
FIRSTS = ["/health", "/ready", PAGE]  # each asked until it answers 200


@dataclass(frozen=True)
class Options:
    """`readers` and `buyers` are the concurrencies of reads and of orders."""

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


class Scene(NamedTuple):
    """One line of the report: `kind` is what is counted, by so many connections at once."""

    name: str
    kind: str
    at_once: int


@dataclass(frozen=True)
class Sample:
    """The bodies ours answers with; the baselines answer with the same."""

    products: dict[UUID, str]
    cards: dict[UUID, str]


class Suite:
    """Runs everything in `folder` and fills `report`."""

    def __init__(self, options: Options, folder: Path, report: Report) -> None:
        self._options, self._folder, self._report = options, folder, report
        self._shop = Shop(admin_password=_kept_secret(folder / "admin-password"))
        self._loop = Loop()

    def run(self) -> None:
        """Every measurement; raises StartFailed or Refused when ours does not play along."""
        began = Ticks.now()
        with servers.pinned(OTHERS), closing(self._loop), self._database() as url:
            if self._options.baselines_only:
                self._baselines(url, _invented(self._options.products))
            else:
                self._everything(url)
        self._report.notes.append(f"stolen by the hypervisor: {Ticks.now().stolen(began):.1%}")

    def _everything(self, url: str) -> None:
        # the address by environment only: it holds a password
        servers.run(
            "markethall", "migrate", log=self._log("migrate"), environ=self._settings("ours", url)
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
            self._report.notes.append("the database was given: nothing is known of its cores")
            return nullcontext(self._options.database_url)
        return servers.database(self._folder / "database")

    def _prepare(self, url: str) -> Sample:
        with self._ours(url) as server:
            _say(f"preparing {self._options.products} products ...")
            self._loop.do(self._shop.stock(server.port, self._options.products))
            _say(f"preparing {self._options.customers} customers ...")
            self._loop.do(self._shop.register(server.port, self._options.customers))
            return self._loop.do(_sampled(server.port, self._shop.products()))

    def _baselines(self, url: str, sample: Sample) -> None:
        body = self._folder / "product.json"
        body.write_text(_median(list(sample.products.values())))
        paths = [f"/products/{product_id}" for product_id in sample.products]
        reads = [Request("product", request_bytes("GET", path)) for path in paths]
        page = [Request("page", request_bytes("GET", PAGE))]
        with self._baseline("raw", "--body", str(body)) as server:
            self._reads(server, RAW, reads)
        dsn = url.replace("postgresql+asyncpg:", "postgresql:")
        self._loop.do(baselines.fill(dsn, sample.products, sample.cards))
        with self._baseline("sql", BENCH_DATABASE_URL=dsn) as server:
            self._reads(server, SQL_ONE, reads)
            self._reads(server, SQL_PAGE, page)
        self._loop.do(baselines.clear(dsn))

    def _cached(self, url: str) -> None:
        with self._ours(url) as server:
            settle(server.process.pid)
            self._memory(server, "memory of the server, idle")
            self._note_background(server)
            self._loop.do(bodies(server.port, self._shop.products()))  # so that all are cached
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
            scripts = self._shop.placing(customers)
            self._measure(server, Scene("place", "place", customers), scripts)
        for customers in self._options.buyers:
            self._loop.do(self._shop.stay_logged_in(server.port))
            scripts = self._shop.buying(customers)
            self._measure(server, Scene("place + confirm", "purchase", customers), scripts)

    def _uncached(self, url: str) -> None:
        with self._ours(url, MARKETHALL_CACHE="off") as server:
            self._reads(server, "product, uncached", self._shop.products())
            self._reads(server, "page of 20, uncached", self._shop.page())

    def _cold_starts(self) -> None:
        """On a data directory of its own, with the database the server starts itself."""
        kept = (self._folder / "cold").exists()  # by --data-dir
        name = "first start of this run" if kept else "first start, empty directory"
        with self._ours(None, folder="cold") as server:
            self._report_start(name, server.wait("/ready", 120))
            self._loop.do(Shop(self._shop.admin_password).stock(server.port, 20))
        starts = [self._cold_start() for _ in range(self._options.starts)]
        foreign = max(loud for _, loud in starts)
        for path in FIRSTS:
            middle = statistics.median(took[path] for took, _ in starts)
            self._report_start(f"cold start to {path.partition('?')[0]}", middle, foreign)
        with self._ours(None, folder="cold") as server:
            settle(server.process.pid)
            self._memory(server, "memory of the server, idle, embedded database")

    def _cold_start(self) -> tuple[dict[str, float], float]:
        """Seconds to the first 200 by path, and what others used of the machine meanwhile."""
        settings, before = self._settings("cold", None), Ticks.now()
        with servers.serving(
            "markethall", "serve", log=self._log("cold"), environ=settings
        ) as server:
            took = server.wait_all(FIRSTS)
            return took, Ticks.now().foreign(before)

    def _report_start(self, name: str, seconds: float, foreign: float = nan) -> None:
        self._show(Figure(name, seconds, "s", foreign=foreign))

    def _reads(self, server: Server, name: str, requests: Sequence[Request]) -> None:
        for readers in self._options.readers:
            scene = Scene(name, requests[0].kind, readers)
            self._measure(server, scene, endless(requests, readers))

    def _measure(self, server: Server, scene: Scene, scripts: Scripts) -> None:
        options = self._options
        tally = Tally(limit=options.requests, tolerated=TOLERATED.get(scene.kind, frozenset()))
        counted, before = self._loop.do(statements(server.port)), Ticks.now(server.process.pid)
        self._loop.do(load(server.port, scripts, tally, options.warmup, options.seconds))
        after, left = Ticks.now(server.process.pid), settle(server.process.pid)
        # what the load left behind belongs to it: statements and processor time count until here
        settled, now = Ticks.now(server.process.pid), self._loop.do(statements(server.port))
        sent = None if counted is None or now is None else now - counted
        self._tell(scene, tally)
        figure = _with_cores(_figure(scene, tally, sent), before, after)
        figure = _with_cost(figure, tally.answered[scene.kind], settled.seconds(before))
        self._show(self._with_rest(figure, left))

    def _tell(self, scene: Scene, tally: Tally) -> None:
        where = f"{scene.name} at {scene.at_once}"
        for what, times in tally.failures.items():
            self._report.failures[f"{where}, {what}"] = times
        for what, times in tally.expected.items():
            self._report.expected[f"{where}, {what}"] = times

    def _show(self, figure: Figure) -> None:
        self._report.add(figure)
        at_once = f" at {figure.at_once}" if figure.at_once else ""
        _say(f"{figure.name}{at_once}: {figure.value:,.2f} {figure.unit}")

    def _memory(self, server: Server, name: str) -> None:
        self._show(Figure(name, servers.rss(server.process.pid), "MB"))
        children = servers.descendants(server.process.pid)
        if children:
            names = ", ".join(sorted({servers.command_name(child) for child in children}))
            whole = sum(servers.rss(child) for child in children)
            title = f"  its {len(children)} children ({names}), shared pages counted in each"
            self._show(Figure(title, whole, "MB"))

    def _note_background(self, server: Server) -> None:
        before = self._loop.do(statements(server.port))
        time.sleep(2)
        after = self._loop.do(statements(server.port))
        if before is not None and after is not None:
            self._report.notes.append(f"statements while idle: {(after - before) / 2:.1f}/s")

    def _with_rest(self, figure: Figure, left: float) -> Figure:
        """What can be kept up: the rate, had the load lasted until its work was done."""
        if left <= 0.5:
            return figure
        span = self._options.warmup + self._options.seconds
        sustained = figure.value * span / (span + left)
        rest = f"{'more than ' if left >= PATIENCE else ''}{left:.1f} s of work were left after it"
        self._report.notes.append(f"{figure.name} at {figure.at_once}: {rest}, {sustained:.0f}/s")
        return replace(figure, sustained=sustained)

    @contextmanager
    def _ours(self, url: str | None, folder: str = "ours", **more: str) -> Iterator[Server]:
        settings = self._settings(folder, url) | more
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
        }
        return settings | ({"MARKETHALL_DATABASE_URL": url} if url else {})

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def _figure(scene: Scene, tally: Tally, sent: float | None) -> Figure:
    kind, answered = scene.kind, tally.answered[scene.kind]
    return Figure(
        scene.name,
        tally.rate(kind),
        at_once=scene.at_once,
        p50_ms=tally.percentile(kind, 50) * 1000,
        p99_ms=tally.percentile(kind, 99) * 1000,
        samples=len(tally.latencies[kind]),
        statements=sent / answered if sent is not None and answered else None,
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


async def _sampled(port: int, reads: Sequence[Request]) -> Sample:
    """Every product's body, and its card as the list shows it."""
    texts = [body.decode() for body in await bodies(port, reads)]
    products = {UUID(json.loads(text)["product_id"]): text for text in texts}
    items = (await fetch(port, PAGE))["items"]
    cards = [json.dumps(item, separators=(",", ":"), ensure_ascii=False) for item in items]
    # one page of real cards, repeated: a card's size counts, not whose it is
    return Sample(products, {x: cards[at % len(cards)] for at, x in enumerate(products)})


def _invented(products: int) -> Sample:
    """Bodies of about the right shape and size, for when ours is not there to ask."""
    ids = [UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0000 + at) for at in range(products)]
    card = '{"product_id":"%s","sku":"BENCH-00001","name":"Market stall apron no. 1","price":'
    card += '{"amount":1001,"currency":"EUR"},"status":"active","available":1000000'
    text = card + ',"description":"%s","tags":["apron","cotton","market"],"version":1}'
    words = "Heavy cotton, two pockets, washes at sixty degrees. " * 4
    return Sample({x: text % (x, words) for x in ids}, {x: card % x + "}" for x in ids})


def _median(texts: list[str]) -> str:
    return sorted(texts, key=len)[len(texts) // 2]


def _kept_secret(path: Path) -> str:
    """A password made once per data directory, readable by its owner only."""
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(18))
    return path.read_text()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
