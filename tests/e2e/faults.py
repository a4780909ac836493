"""What can go wrong between four processes: who strikes where, who suffers, and how it heals."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from markethall.contexts import topology
from markethall.local.valkey import EmbeddedValkey
from tests.e2e.split_cluster import FULL_SPLIT, SplitCluster, split_cluster
from tests.proxy import Mode, Proxy

Edge = tuple[str, str]
REDIS: Edge = ("everybody", "redis")
DELAY = 2.0
LATE = f"{DELAY:.0f} s late"
# what a customer or the staff asks for, and whom it needs besides the one who is asked
LEAVES = frozenset({"users", "inventory", "payments"})
NEEDED = {"place": {"users", "inventory", "payments"}, "fulfil": {"inventory"}}


@dataclass
class FaultSetup:
    """Four processes, and on every edge a line that can be broken."""

    split: SplitCluster
    lines: dict[Edge, Proxy]
    valkey: EmbeddedValkey


@asynccontextmanager
async def fault_setup(
    folder: Path, database_url: str, **settings: str
) -> AsyncIterator[FaultSetup]:
    async with AsyncExitStack() as stack:
        valkey = EmbeddedValkey()
        stack.callback(valkey.stop)
        lines = {
            edge: await stack.enter_async_context(Proxy(delay=DELAY)) for edge in [*_edges(), REDIS]
        }
        lines[REDIS].target = _port(valkey.start())
        redis_url = f"redis://127.0.0.1:{lines[REDIS].port}/0"
        via = {edge: lines[edge].url for edge in _edges()}
        split = await stack.enter_async_context(
            split_cluster(folder, FULL_SPLIT, database_url, redis_url, via, **settings)
        )
        for edge in _edges():
            lines[edge].target = split.service(edge[1]).port
        yield FaultSetup(split, lines, valkey)


def _edges() -> list[Edge]:
    """Who calls whom, and whose keys are read."""
    return [
        (caller, target)
        for caller in topology().dependencies
        for target in sorted(topology().dependencies[caller] | topology().jwks_sources[caller])
    ]


def _port(url: str) -> int:
    return urlsplit(url).port or 0


@dataclass(frozen=True)
class Fault:
    """`away`: who answers nobody. `spoils`: what may be refused by those who do answer."""

    where: str
    kind: str
    away: frozenset[str] = field(default=frozenset())
    spoils: frozenset[str] = field(default=frozenset())
    # whose calls are told in the report
    asked: frozenset[str] = LEAVES

    @property
    def name(self) -> str:
        return f"{self.where}: {self.kind}"

    @property
    def is_silent(self) -> bool:
        """Nobody is told that anything is wrong: only time tells."""
        return self.kind in {"stopped", LATE, "blackhole"}

    async def prepare(self, stage: FaultSetup) -> None:
        """Before the crowd comes."""

    async def inject(self, stage: FaultSetup) -> None: ...

    async def heal(self, stage: FaultSetup) -> None: ...


class Killed(Fault):
    """kill -9; healed when it is ready again."""

    async def inject(self, stage: FaultSetup) -> None:
        for context in self.away:
            stage.split.service(context).kill()

    async def heal(self, stage: FaultSetup) -> None:
        await asyncio.gather(*(stage.split.service(context).restart() for context in self.away))


class Stopped(Fault):
    """SIGSTOP: connections are taken, and nobody answers."""

    async def inject(self, stage: FaultSetup) -> None:
        for context in self.away:
            stage.split.service(context).stop()

    async def heal(self, stage: FaultSetup) -> None:
        for context in self.away:
            stage.split.service(context).cont()


@dataclass(frozen=True)
class Broken(Fault):
    """A line, by a proxy."""

    edge: Edge = REDIS
    mode: Mode = Mode.PASS

    async def inject(self, stage: FaultSetup) -> None:
        await stage.lines[self.edge].switch(self.mode)

    async def heal(self, stage: FaultSetup) -> None:
        await stage.lines[self.edge].switch(Mode.PASS)


class Keyless(Broken):
    """The line to the keys is broken, and who needs them has just begun and knows none."""

    async def prepare(self, stage: FaultSetup) -> None:
        await stage.lines[self.edge].switch(self.mode)
        part = stage.split.service(self.edge[0])
        part.kill()
        await part.restart()


class RedisKilled(Fault):
    """kill -9, and with it all that it held."""

    async def inject(self, stage: FaultSetup) -> None:
        _signal(stage.valkey, signal.SIGKILL)
        stage.valkey.stop()

    async def heal(self, stage: FaultSetup) -> None:
        stage.lines[REDIS].target = _port(stage.valkey.start())


class RedisStopped(Fault):
    async def inject(self, stage: FaultSetup) -> None:
        _signal(stage.valkey, signal.SIGSTOP)

    async def heal(self, stage: FaultSetup) -> None:
        _signal(stage.valkey, signal.SIGCONT)


def _signal(server: EmbeddedValkey, number: signal.Signals) -> None:
    assert server.pid is not None
    os.kill(server.pid, number)


def spoilt(*targets: str) -> frozenset[str]:
    """What needs one of them."""
    return frozenset(what for what, needed in NEEDED.items() if needed & set(targets))


BREAKS = {
    "reset": Mode.RESET,
    "answers lost": Mode.LOSE_ANSWERS,
    LATE: Mode.DELAY,
    "blackhole": Mode.BLACKHOLE,
}


def context_faults(target: str) -> list[Fault]:
    """All that can happen to one whom orders calls, and to the line between them."""
    it, spoils, line = frozenset({target}), spoilt(target), f"orders -> {target}"
    return [
        Killed(line, "killed", it, spoils, it),
        Stopped(line, "stopped", it, spoils, it),
        *(
            Broken(line, kind, spoils=spoils, asked=it, edge=("orders", target), mode=mode)
            for kind, mode in BREAKS.items()
        ),
    ]


# who cannot tell people from strangers refuses everybody who shows a token
_BY_TOKEN = {"inventory": frozenset({"stock"}), "payments": frozenset({"payment", "confirm"})}


def jwks_faults(reader: str, issuer: str) -> list[Fault]:
    spoils = _BY_TOKEN[reader] if issuer == "users" else spoilt(reader)
    line = f"{reader} -> keys of {issuer}"
    return [
        Keyless(line, kind, spoils=spoils, edge=(reader, issuer), mode=mode)
        for kind, mode in BREAKS.items()
        if mode is not Mode.LOSE_ANSWERS
    ]


def redis_faults() -> list[Fault]:
    """Nothing is refused: what is late are the news of payments."""
    return [
        RedisKilled("redis", "killed and empty"),
        RedisStopped("redis", "stopped"),
        *(Broken("redis", kind, edge=REDIS, mode=mode) for kind, mode in BREAKS.items()),
    ]


def process_faults() -> list[Fault]:
    # whoever starts anew must first learn the keys of users, who may be a moment later
    keyless = frozenset().union(*_BY_TOKEN.values())
    return [
        Killed("orders", "killed", frozenset({"orders"})),
        Stopped("orders", "stopped", frozenset({"orders"})),
        Killed("all leaves", "killed", LEAVES, spoilt(*LEAVES) | keyless),
        Stopped("all leaves", "stopped", LEAVES, spoilt(*LEAVES)),
    ]
