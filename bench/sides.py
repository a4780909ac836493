"""The same hall twice: together in one process, and apart in four. Both stay up all the time."""

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

TOGETHER: Final = (frozenset(context_names()),)
APART: Final = tuple(frozenset({context}) for context in context_names())
COMMON: Final = {"rate_limits": "off", "log_format": "json", "admin_email": ADMIN}


@dataclass(frozen=True)
class Side:
    """One of the two: a process for each part of it, and a shop with its own goods."""

    name: str
    parts: Mapping[frozenset[str], Server]
    shop: Shop

    def port(self, context: str) -> int:
        """Where this context answers."""
        [server] = (server for serves, server in self.parts.items() if context in serves)
        return server.port

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.parts.values()]

    @property
    def pids(self) -> list[int]:
        return [server.process.pid for server in self.parts.values()]

    def settle(self) -> float:
        """Wait until there is nothing left to do; the seconds that took."""
        return servers.settle(*self.pids)


@contextmanager
def both(folder: Path) -> Iterator[list[Side]]:
    """Together and apart, each on a new database of one embedded Postgres, and one Valkey."""
    with ExitStack() as stack:
        postgres = stack.enter_context(servers.database(folder / "database"))
        with servers.pinned(OTHERS):
            valkey = stack.enter_context(EmbeddedValkey())
        yield [
            stack.enter_context(_side(name, partition, folder / name, postgres, valkey, number))
            for number, (name, partition) in enumerate(
                {"together": TOGETHER, "apart": APART}.items()
            )
        ]


@contextmanager
def _side(
    name: str,
    partition: tuple[frozenset[str], ...],
    folder: Path,
    postgres: str,
    valkey: str,
    number: int,
) -> Iterator[Side]:
    folder.mkdir()
    shop = Shop(admin_password=secrets.token_urlsafe(18))
    settings = COMMON | {
        "admin_password": shop.admin_password,
        "secret_key": secrets.token_urlsafe(48),
        "database_url": asyncio.run(_created(postgres, f"bench_{name}")),
        "redis_url": f"{valkey.rpartition('/')[0]}/{number}",
    }
    log = folder / "migrate.log"
    servers.run("markethall", "migrate", log=log, environ=_named(settings))
    with ExitStack() as stack:
        parts = _planned(partition, folder, settings)
        yield Side(name, {serves: _started(stack, *plan) for serves, plan in parts.items()}, shop)


Plan = tuple[int, Path, Mapping[str, str]]


def _planned(
    partition: tuple[frozenset[str], ...], folder: Path, settings: Mapping[str, str]
) -> dict[frozenset[str], Plan]:
    """For each process its port, its folder and its settings."""
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


def _started(stack: ExitStack, port: int, folder: Path, settings: Mapping[str, str]) -> Server:
    environ = _named({"data_dir": str(folder), **settings})
    log = folder.with_suffix(".log")
    # no core of its own for a server: four processes may use what one cannot
    started = servers.serving("markethall", "serve", log=log, environ=environ, port=port, cores=ALL)
    server = stack.enter_context(started)
    server.wait("/ready", 120)
    return server


def _named(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"MARKETHALL_{name.upper()}": value for name, value in settings.items()}


async def _created(server: str, name: str) -> str:
    """The address of a new database. Raises what asyncpg raises."""
    connection = await asyncpg.connect(server.replace("postgresql+asyncpg:", "postgresql:"))
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return urlsplit(server)._replace(path=f"/{name}").geturl()
