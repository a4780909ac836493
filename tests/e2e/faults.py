"""The faults of a cluster of four processes: how to cause and repair them, and what may fail."""

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

# Without the event of its payment, a paid order still counts as unpaid. So a few customers who buy
# all the time would reach the limits while Redis is unavailable.
WITHOUT_LIMITS = {
    "max_unpaid_orders_per_customer": "100000",
    "max_reserved_units_per_customer": "1000000",
}

Edge = tuple[str, str]
REDIS: Edge = ("all", "redis")
DELAY = 2.0
LATE = f"delayed by {DELAY:.0f} s"
# the contexts that call no other context: the leaves of the call graph
LEAVES = frozenset({"users", "inventory", "payments"})
# maps each operation of the `orders` context to the contexts that it calls
CALLED_CONTEXTS = {"place": {"users", "inventory", "payments"}, "fulfil": {"inventory"}}


@dataclass
class FaultSetup:
    """Four processes with a fault-injecting proxy on every connection."""

    split: SplitCluster
    proxies: dict[Edge, Proxy]
    valkey: EmbeddedValkey


@asynccontextmanager
async def fault_setup(
    folder: Path, database_url: str, **settings: str
) -> AsyncIterator[FaultSetup]:
    async with AsyncExitStack() as stack:
        valkey = EmbeddedValkey()
        stack.callback(valkey.stop)
        proxies = {
            edge: await stack.enter_async_context(Proxy(delay=DELAY)) for edge in [*_edges(), REDIS]
        }
        direct_url = valkey.start()
        proxies[REDIS].target = _port(direct_url)
        redis_url = direct_url.replace(f":{_port(direct_url)}/", f":{proxies[REDIS].port}/")
        proxy_urls = {edge: proxies[edge].url for edge in _edges()}
        settings = {**WITHOUT_LIMITS, **settings}
        split = await stack.enter_async_context(
            split_cluster(folder, FULL_SPLIT, database_url, redis_url, proxy_urls, **settings)
        )
        for edge in _edges():
            proxies[edge].target = split.service(edge[1]).port
        yield FaultSetup(split, proxies, valkey)


def _edges() -> list[Edge]:
    """Return (caller, target) of each call and of each request for public keys."""
    return [
        (caller, target)
        for caller in topology().dependencies
        for target in sorted(topology().dependencies[caller] | topology().jwks_sources[caller])
    ]


def _port(url: str) -> int:
    return urlsplit(url).port or 0


@dataclass(frozen=True)
class Fault:
    """A fault of the cluster.

    The contexts in `unavailable` do not respond. The operations in `may_fail` may get a 503.
    """

    location: str
    kind: str
    unavailable: frozenset[str] = field(default=frozenset())
    may_fail: frozenset[str] = field(default=frozenset())
    # the report counts the calls to these contexts
    counted_targets: frozenset[str] = LEAVES

    @property
    def name(self) -> str:
        return f"{self.location}: {self.kind}"

    @property
    def is_timeout_only(self) -> bool:
        """Return whether clients see no error, only a timeout."""
        return self.kind in {"stopped", LATE, "blackhole"}

    async def prepare(self, setup: FaultSetup) -> None:
        """Prepare the cluster before the load starts."""

    async def inject(self, setup: FaultSetup) -> None: ...

    async def repair(self, setup: FaultSetup) -> None: ...


class ProcessKilled(Fault):
    """The processes of the contexts get SIGKILL; the repair restarts them."""

    async def inject(self, setup: FaultSetup) -> None:
        for context in self.unavailable:
            setup.split.service(context).kill()

    async def repair(self, setup: FaultSetup) -> None:
        await asyncio.gather(
            *(setup.split.service(context).restart() for context in self.unavailable)
        )


class ProcessSuspended(Fault):
    """The processes of the contexts get SIGSTOP: they accept connections but do not respond."""

    async def inject(self, setup: FaultSetup) -> None:
        for context in self.unavailable:
            setup.split.service(context).stop()

    async def repair(self, setup: FaultSetup) -> None:
        for context in self.unavailable:
            setup.split.service(context).cont()


@dataclass(frozen=True)
class ConnectionFault(Fault):
    """A fault of one connection, which its proxy causes."""

    edge: Edge = REDIS
    mode: Mode = Mode.PASS

    async def inject(self, setup: FaultSetup) -> None:
        await setup.proxies[self.edge].switch(self.mode)

    async def repair(self, setup: FaultSetup) -> None:
        await setup.proxies[self.edge].switch(Mode.PASS)


class JwksUnavailable(ConnectionFault):
    """A service is restarted, and its connection for public keys has a fault.

    `edge` is (the service, the issuer of the tokens, whose public keys it fetches).
    """

    async def prepare(self, setup: FaultSetup) -> None:
        await setup.proxies[self.edge].switch(self.mode)
        service = setup.split.service(self.edge[0])
        service.kill()
        await service.restart()


class RedisKilled(Fault):
    """Valkey gets SIGKILL, and loses all its data."""

    async def inject(self, setup: FaultSetup) -> None:
        _signal(setup.valkey, signal.SIGKILL)
        setup.valkey.stop()

    async def repair(self, setup: FaultSetup) -> None:
        setup.proxies[REDIS].target = _port(setup.valkey.start())


class RedisSuspended(Fault):
    async def inject(self, setup: FaultSetup) -> None:
        _signal(setup.valkey, signal.SIGSTOP)

    async def repair(self, setup: FaultSetup) -> None:
        _signal(setup.valkey, signal.SIGCONT)


def _signal(server: EmbeddedValkey, number: signal.Signals) -> None:
    assert server.pid is not None
    os.kill(server.pid, number)


def operations_calling(*targets: str) -> frozenset[str]:
    """Return the operations that call one of these contexts."""
    return frozenset(
        operation for operation, called in CALLED_CONTEXTS.items() if called & set(targets)
    )


CONNECTION_FAULTS = {
    "reset": Mode.RESET,
    "responses lost": Mode.LOSE_ANSWERS,
    LATE: Mode.DELAY,
    "blackhole": Mode.BLACKHOLE,
}


def context_faults(target: str) -> list[Fault]:
    """Return the faults of `target`, and of the connection from the `orders` context to it."""
    targets, may_fail, location = (
        frozenset({target}),
        operations_calling(target),
        f"orders -> {target}",
    )
    return [
        ProcessKilled(location, "killed", targets, may_fail, targets),
        ProcessSuspended(location, "stopped", targets, may_fail, targets),
        *(
            ConnectionFault(
                location,
                kind,
                may_fail=may_fail,
                counted_targets=targets,
                edge=("orders", target),
                mode=mode,
            )
            for kind, mode in CONNECTION_FAULTS.items()
        ),
    ]


# operations that fail when a context cannot verify access tokens
_TOKEN_OPERATIONS = {
    "inventory": frozenset({"stock"}),
    "payments": frozenset({"payment", "confirm"}),
}


def jwks_faults(reader: str, issuer: str) -> list[Fault]:
    may_fail = _TOKEN_OPERATIONS[reader] if issuer == "users" else operations_calling(reader)
    location = f"{reader} -> JWKS of {issuer}"
    return [
        JwksUnavailable(location, kind, may_fail=may_fail, edge=(reader, issuer), mode=mode)
        for kind, mode in CONNECTION_FAULTS.items()
        if mode is not Mode.LOSE_ANSWERS
    ]


def redis_faults() -> list[Fault]:
    """Return the faults of Redis. They may delay payment events, but no request may fail."""
    return [
        RedisKilled("redis", "killed and empty"),
        RedisSuspended("redis", "stopped"),
        *(
            ConnectionFault("redis", kind, edge=REDIS, mode=mode)
            for kind, mode in CONNECTION_FAULTS.items()
        ),
    ]


def process_faults() -> list[Fault]:
    # a restarted process fetches the public keys from the `users` context; until `users` has also
    # started, the process cannot verify access tokens and responds with 503
    token_operations = frozenset().union(*_TOKEN_OPERATIONS.values())
    return [
        ProcessKilled("orders", "killed", frozenset({"orders"})),
        ProcessSuspended("orders", "stopped", frozenset({"orders"})),
        ProcessKilled(
            "all leaves", "killed", LEAVES, operations_calling(*LEAVES) | token_operations
        ),
        ProcessSuspended("all leaves", "stopped", LEAVES, operations_calling(*LEAVES)),
    ]
