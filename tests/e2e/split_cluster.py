"""Runs the application as several processes, for any partition of the contexts.

    partition = [{"orders"}, {"users", "payments"}, {"inventory"}]
    async with split_cluster(folder, partition, url) as split:
        Shop(split.server, http)           # sends each request to the process of its context
        split.service("payments").kill()   # kills the process that serves payments

Each process has its own data directory, and only the private keys with which it signs.
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
# maps (caller, target) to the URL by which the caller reaches the target
Detours = Mapping[tuple[str, str], str]

FULL_SPLIT: Final[Partition] = tuple(frozenset({context}) for context in CONTEXTS)


@dataclass
class ServiceProcess:
    """One process of a split cluster. A restart keeps its port and settings."""

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
        """Start the process, or start it again after its exit, without waiting."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = spawn(self.port, self.environment, self.arguments, output)

    async def wait_until_ready(self) -> None:
        await asyncio.to_thread(wait_until_ready, self.process, self.port, self.log)

    async def restart(self) -> None:
        """Start the process again after its exit, and wait until it is ready."""
        self.spawn()
        await self.wait_until_ready()

    def kill(self) -> None:
        """Send SIGKILL and wait for the exit."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Send SIGSTOP: the port still accepts connections, but they get no response."""
        os.kill(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def end(self) -> None:
        """Resume the process if it is suspended, send SIGTERM and wait for the exit."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.cont()
        await asyncio.to_thread(end, self._process)


@dataclass(frozen=True)
class SplitCluster:
    parts: tuple[ServiceProcess, ...]

    def service(self, context: str) -> ServiceProcess:
        """Return the process that serves the context."""
        (part,) = (part for part in self.parts if context in part.serves)
        return part

    @property
    def server(self) -> RunningServer:
        """The cluster as a RunningServer, with the current `pids`.

        `log` is the log of the process that serves the `orders` context.
        """
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
    detours: Detours | None = None,
    **settings: str,
) -> AsyncIterator[SplitCluster]:
    """Run all processes during the block, which starts when all are ready.

    `database_url` is one URL for all contexts, or maps each context to its URL. `detours` has the
    URLs of proxies between processes. Every process gets the settings; their names are in lower
    case, without the prefix MARKETHALL_.
    """
    split = plan_cluster(folder, partition, database_url, redis_url, detours, **settings)
    try:
        for part in split.parts:
            part.spawn()
        await asyncio.gather(*(part.wait_until_ready() for part in split.parts))
        yield split
    finally:
        await asyncio.gather(*(part.end() for part in split.parts))


def plan_cluster(
    folder: Path,
    partition: Partition,
    database_url: str | Mapping[str, str],
    redis_url: str = "",
    detours: Detours | None = None,
    **settings: str,
) -> SplitCluster:
    """Choose ports, keys and settings without starting a process."""
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
            "context_urls": _remotes(serves, urls, detours or {}),
        }
        given = environment(home, **common, **own, **_databases(database_url, serves))
        return ServiceProcess(serves, port, home, given)

    return SplitCluster(tuple(service(serves, port) for serves, port in ports.items()))


def _remotes(serves: frozenset[str], urls: Mapping[str, str], detours: Detours) -> str:
    """Return the URLs of the other contexts; a URL in `detours` takes precedence."""
    own_detours = {target: url for (caller, target), url in detours.items() if caller in serves}
    others = {c: own_detours.get(c, url) for c, url in urls.items() if c not in serves}
    return json.dumps(others)


def _databases(database_url: str | Mapping[str, str], serves: frozenset[str]) -> dict[str, str]:
    if isinstance(database_url, str):
        return {"database_url": database_url}
    return {"database_urls": as_json({context: database_url[context] for context in serves})}


def _different_ports(count: int) -> list[int]:
    """Return different free ports. With SO_REUSEADDR, `free_port` may return one port twice."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return sorted(ports)
