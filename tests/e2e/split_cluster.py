"""The hall as several real processes: any partition of the four contexts.

    async with split_hall(folder, [{"orders"}, {"users", "payments"}, {"inventory"}], url) as split:
        Shop(split.hall, http)             # addresses per context, as of any other hall
        split.of("payments").kill()        # the process that serves it

Each process gets the keys that it signs with and no others, and a data directory of its own.
"""

import asyncio
import json
import os
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from markethall.shared.security.access_tokens import generate_private_key
from tests.e2e.dedicated_server import environment
from tests.e2e.servers import (
    CONTEXTS,
    RunningServer,
    as_json,
    end,
    free_port,
    spawn,
    wait_until_ready,
)

Partition = Sequence[AbstractSet[str]]
# (caller, target) -> the address under which the caller finds the target
Detours = Mapping[tuple[str, str], str]

FULL_SPLIT: Final[Partition] = tuple(frozenset({context}) for context in CONTEXTS)


@dataclass
class ServiceProcess:
    """One process of a split hall. It keeps its port and its settings when it is started again."""

    serves: frozenset[str]
    port: int
    folder: Path
    environment: Mapping[str, str]
    arguments: tuple[str, ...] = ()
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return "+".join(sorted(self.serves))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "serve.log"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, f"{self.name} was not started"
        return self._process

    def spawn(self) -> None:
        """Begin to start it, or to start it again when it is dead."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = spawn(self.port, self.environment, self.arguments, output)

    async def is_ready(self) -> None:
        await asyncio.to_thread(wait_until_ready, self.process, self.port, self.log)

    async def restart(self) -> None:
        """Once it is dead: as before, on the same port. Returns when it is ready."""
        self.spawn()
        await self.is_ready()

    def kill(self) -> None:
        """kill -9, and it is dead."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGSTOP: its port still takes connections, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def end(self) -> None:
        """By SIGTERM, also where it is stopped; nothing happens where it was never started."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.cont()
        await asyncio.to_thread(end, self._process)


@dataclass(frozen=True)
class SplitCluster:
    parts: tuple[ServiceProcess, ...]

    def service(self, context: str) -> ServiceProcess:
        """The process that serves it."""
        (part,) = (part for part in self.parts if context in part.serves)
        return part

    @property
    def server(self) -> RunningServer:
        """Where each context answers, and the processes of this moment. The log: that of orders."""
        pids = tuple(part.pid for part in self.parts)
        log = self.service("orders").log
        others = tuple(part.log for part in self.parts if part.log != log)
        return RunningServer(self.urls, pids, log, other_logs=others)

    @property
    def urls(self) -> dict[str, str]:
        return {context: self.service(context).url for context in CONTEXTS}


@asynccontextmanager
async def split_cluster(
    folder: Path,
    partition: Partition,
    database_url: str | Mapping[str, str],
    redis_url: str = "",
    via: Detours | None = None,
    **settings: str,
) -> AsyncIterator[SplitCluster]:
    """All its processes, ready to answer; ended by their pids.

    `database_url`: one for all, or one per context. `via` puts something in the way of an edge.
    Settings by their names without the prefix, in lower case, for every process.
    """
    split = plan_cluster(folder, partition, database_url, redis_url, via, **settings)
    try:
        for part in split.parts:
            part.spawn()
        await asyncio.gather(*(part.is_ready() for part in split.parts))
        yield split
    finally:
        await asyncio.gather(*(part.end() for part in split.parts))


def plan_cluster(
    folder: Path,
    partition: Partition,
    database_url: str | Mapping[str, str],
    redis_url: str = "",
    via: Detours | None = None,
    **settings: str,
) -> SplitCluster:
    """The same, with nothing started: ports, keys and settings are fixed."""
    assert sorted(c for part in partition for c in part) == sorted(CONTEXTS), partition
    ports = dict(zip(map(frozenset, partition), _different_ports(len(partition)), strict=True))
    urls = {c: f"http://127.0.0.1:{port}" for serves, port in ports.items() for c in serves}
    common = {"secret_key": secrets.token_urlsafe(48), "redis_url": redis_url} | settings
    keys = {
        "users": {"access_token_private_key": generate_private_key()},
        "orders": {"service_token_private_key": generate_private_key()},
    }

    def service(serves: frozenset[str], port: int) -> ServiceProcess:
        home = folder / "+".join(sorted(serves))
        own = {name: key for context in serves for name, key in keys.get(context, {}).items()}
        own |= {
            "contexts": ",".join(sorted(serves)),
            "context_urls": _remotes(serves, urls, via or {}),
        }
        given = environment(home, **common, **own, **_databases(database_url, serves))
        return ServiceProcess(serves, port, home, given)

    return SplitCluster(tuple(service(serves, port) for serves, port in ports.items()))


def _remotes(serves: frozenset[str], urls: Mapping[str, str], via: Detours) -> str:
    """Everybody else, each by the way that one of us goes."""
    detours = {target: url for (caller, target), url in via.items() if caller in serves}
    others = {c: detours.get(c, url) for c, url in urls.items() if c not in serves}
    return json.dumps(others)


def _databases(database_url: str | Mapping[str, str], serves: frozenset[str]) -> dict[str, str]:
    if isinstance(database_url, str):
        return {"database_url": database_url}
    return {"database_urls": as_json({context: database_url[context] for context in serves})}


def _different_ports(count: int) -> list[int]:
    """A port that is free may be offered twice before anybody listens there."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return sorted(ports)
