"""Two deployments that run at the same time: one process, and one process per context."""

import asyncio
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from markethall.contexts import context_names
from markethall.local.valkey import EmbeddedValkey
from markethall.shared.security.access_tokens import generate_private_key

from . import servers
from .servers import ALL, OTHERS, Server
from .shop import ADMIN, Shop

MONOLITH: Final = (frozenset(context_names()),)
FULL_SPLIT: Final = tuple(frozenset({context}) for context in context_names())
COMMON: Final = {
    "rate_limits": "off",
    "log_format": "json",
    "admin_email": ADMIN,
    # high limits, because each customer places many orders before it pays them
    "max_unpaid_orders_per_customer": "1000000",
    "max_reserved_units_per_customer": "1000000",
}


@dataclass(frozen=True)
class Deployment:
    """One deployment: its processes, and the products and customers of its benchmark."""

    name: str
    processes: Mapping[frozenset[str], Server]
    shop: Shop

    def port(self, context: str) -> int:
        """Return the port of the process that serves this context."""
        [server] = (server for serves, server in self.processes.items() if context in serves)
        return server.port

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.processes.values()]

    @property
    def pids(self) -> list[int]:
        return [server.process.pid for server in self.processes.values()]

    def settle(self) -> float:
        """Wait until the processes are idle, and return the seconds of the wait."""
        return servers.settle(*self.pids)


@contextmanager
def both_deployments(folder: Path) -> Iterator[list[Deployment]]:
    """Run both deployments. Each has a new database; they share one Postgres and one Valkey."""
    with ExitStack() as stack:
        postgres = stack.enter_context(servers.database(folder / "database"))
        with servers.pinned(OTHERS):
            valkey = stack.enter_context(EmbeddedValkey())
        yield [
            stack.enter_context(
                _deployment(name, partition, folder / name, postgres, valkey, number)
            )
            for number, (name, partition) in enumerate(
                {"monolith": MONOLITH, "split": FULL_SPLIT}.items()
            )
        ]


@contextmanager
def _deployment(
    name: str,
    partition: tuple[frozenset[str], ...],
    folder: Path,
    postgres: str,
    valkey: str,
    number: int,
) -> Iterator[Deployment]:
    folder.mkdir()
    shop = Shop(admin_password=secrets.token_urlsafe(18))
    settings = COMMON | {
        "admin_password": shop.admin_password,
        "secret_key": secrets.token_urlsafe(48),
        "database_url": asyncio.run(_create_database(postgres, f"bench_{name}")),
        "redis_url": f"{valkey.rpartition('/')[0]}/{number}",
    }
    log = folder / "migrate.log"
    servers.run("markethall", "migrate", log=log, environ=_environment(settings))
    with ExitStack() as stack:
        processes = _plan(partition, folder, settings)
        yield Deployment(
            name, {serves: _start(stack, *plan) for serves, plan in processes.items()}, shop
        )


Plan = tuple[int, Path, Mapping[str, str]]


def _plan(
    partition: tuple[frozenset[str], ...], folder: Path, settings: Mapping[str, str]
) -> dict[frozenset[str], Plan]:
    """Return port, folder and settings of each process."""
    ports = dict(zip(partition, servers.free_ports(len(partition)), strict=True))
    urls = {context: f"http://127.0.0.1:{port}" for part, port in ports.items() for context in part}
    keys = {"users": "access_token_private_key", "orders": "service_token_private_key"}
    return {
        part: (
            port,
            folder / "-".join(sorted(part)),
            {
                **settings,
                **{keys[context]: generate_private_key() for context in part if context in keys},
                "contexts": ",".join(sorted(part)),
                "context_urls": json.dumps({c: url for c, url in urls.items() if c not in part}),
            },
        )
        for part, port in ports.items()
    }


def _start(stack: ExitStack, port: int, folder: Path, settings: Mapping[str, str]) -> Server:
    environ = _environment({"data_dir": str(folder), **settings})
    log = folder.with_suffix(".log")
    # not pinned to one core, because four processes may use several cores
    starting = servers.serving(
        "markethall", "serve", log=log, environ=environ, port=port, cores=ALL
    )
    server = stack.enter_context(starting)
    server.wait("/ready", 120)
    return server


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"MARKETHALL_{name.upper()}": value for name, value in settings.items()}


async def _create_database(server: str, name: str) -> str:
    """Create a database and return its URL. Raises PostgresError."""
    connection = await asyncpg.connect(server.replace("postgresql+asyncpg:", "postgresql:"))
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return urlsplit(server)._replace(path=f"/{name}").geturl()
