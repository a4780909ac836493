"""Halls for the story, each with databases and a Valkey of their own, and a view from behind."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from markethall.local.valkey import EmbeddedValkey
from markethall.topology import Context
from tests.e2e.halls import Hall, as_json, running
from tests.e2e.own import environment, own_database
from tests.e2e.split import split_hall
from tests.partitions.in_process import SECRET, Parted, as_it_is, parted_hall
from tests.partitions.inside import MemoryInside, SqlInside
from tests.partitions.log import Log
from tests.partitions.player import Player
from tests.partitions.sets import PARTITIONS, TOGETHER, Partition
from tests.partitions.story import play

# a busy machine takes its time, and when to give up waiting is not what is asked here
PATIENT = {"deadline": "30", "remote_timeout": "10", "database_timeout": "20"}


@dataclass(frozen=True)
class Ground:
    """What halls are built on: a server of databases, and a folder for keys."""

    server_url: str
    template: str
    scratch: Path

    @asynccontextmanager
    async def databases(self, partition: Partition) -> AsyncIterator[dict[Context, str]]:
        """One for each block."""
        async with AsyncExitStack() as stack:
            urls: dict[Context, str] = {}
            for block in partition:
                own = own_database(self.server_url, self.template)
                urls |= dict.fromkeys(block, await stack.enter_async_context(own))
            yield urls

    def folder(self, name: str) -> Path:
        folder = self.scratch / f"parted-{name}"
        folder.mkdir(exist_ok=True)
        return folder


@asynccontextmanager
async def in_process(
    ground: Ground, name: str, urls: Mapping[Context, str], **settings: Any
) -> AsyncIterator[Parted]:
    """The partition of that name, on these databases."""
    addresses = {"database_urls": urls, "database_pool_min": 1}
    with EmbeddedValkey() as redis_url:
        addresses["redis_url"] = redis_url
        given = addresses | PATIENT | settings
        async with parted_hall(PARTITIONS[name], ground.folder(name), as_it_is, **given) as parted:
            yield parted


@asynccontextmanager
async def on_one_database(ground: Ground, name: str, **settings: Any) -> AsyncIterator[Parted]:
    async with (
        ground.databases(PARTITIONS[TOGETHER]) as urls,
        in_process(ground, name, urls, **settings) as parted,
    ):
        yield parted


async def log_of_partition(ground: Ground, name: str) -> Log:
    """In one process, each block with a database of its own."""
    async with (
        ground.databases(PARTITIONS[name]) as urls,
        in_process(ground, name, urls) as parted,
        inside_of(urls) as inside,
    ):
        return await log_of(Player(parted.hall, parted.http, inside))


async def log_in_memory(ground: Ground) -> Log:
    """Together, in this process: from outside nobody sees the tables of a memory."""
    partition = PARTITIONS[TOGETHER]
    async with parted_hall(partition, ground.folder("memory"), storage="memory") as parted:
        inside = MemoryInside(parted.containers[Context.ORDERS])
        return await log_of(Player(parted.hall, parted.http, inside))


async def log_of_processes(ground: Ground, name: str) -> Log:
    """The same partition, each block a process of its own with a database of its own."""
    partition = [frozenset(context.value for context in block) for block in PARTITIONS[name]]
    folder = ground.folder(f"real-{name}")
    with EmbeddedValkey() as redis_url:
        async with (
            ground.databases(PARTITIONS[name]) as urls,
            split_hall(
                folder, partition, by_name(urls), redis_url, None, secret=SECRET, **PATIENT
            ) as split,
            visited(split.hall, urls) as player,
        ):
            log = await log_of(player)
    assert faults_in(folder) == []
    return log


async def log_of_workers(ground: Ground) -> Log:
    """All together, in two workers behind one address."""
    folder = ground.folder("workers")
    with EmbeddedValkey() as redis_url:
        async with ground.databases(PARTITIONS[TOGETHER]) as urls:
            addresses = {"database_urls": as_json(by_name(urls)), "redis_url": redis_url}
            given = environment(folder, secret=SECRET, **addresses)
            with running(folder, given, "--workers", "2") as hall:
                async with visited(hall, urls) as player:
                    log = await log_of(player)
    assert faults_in(folder) == []
    return log


def faults_in(folder: Path) -> list[str]:
    """What the processes say went wrong with themselves: a story is no reason for any of it."""
    lines = [line for log in folder.rglob("*.log") for line in log.read_text().splitlines()]
    return [line for line in lines if '"level":"error"' in line]


def by_name(urls: Mapping[Context, str]) -> dict[str, str]:
    return {context.value: url for context, url in urls.items()}


@asynccontextmanager
async def visited(hall: Hall, urls: Mapping[Context, str]) -> AsyncIterator[Player]:
    async with httpx2.AsyncClient(timeout=20) as http, inside_of(urls) as inside:
        yield Player(hall, http, inside)


async def log_of(player: Player) -> Log:
    await play(player)
    await player.close()
    return player.log


@asynccontextmanager
async def inside_of(urls: Mapping[Context, str]) -> AsyncIterator[SqlInside]:
    inside = SqlInside(urls)
    try:
        yield inside
    finally:
        await inside.close()
