"""Halls for the story, each with databases and a Valkey of their own, and a view from behind."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from markethall.local.valkey import EmbeddedValkey
from tests.e2e.dedicated_server import dedicated_database, environment
from tests.e2e.servers import RunningServer, as_json, running
from tests.e2e.split_cluster import split_cluster
from tests.partitions.in_process import SECRET, PartitionedApp, open_partitioned_app, unchanged
from tests.partitions.log import Log
from tests.partitions.partitions import PARTITIONS, TOGETHER, Partition
from tests.partitions.scenario import play
from tests.partitions.scenario_runner import ScenarioRunner
from tests.partitions.server_inspector import MemoryInspector, SqlInspector

# a busy machine takes its time, and when to give up waiting is not what is asked here
SLOW_MACHINE_SETTINGS = {
    "request_deadline_seconds": "30",
    "rpc_attempt_timeout_seconds": "10",
    "database_timeout": "20",
}


@dataclass(frozen=True)
class TestResources:
    """What halls are built on: a server of databases, and a folder for keys."""

    server_url: str
    template: str
    scratch: Path

    @asynccontextmanager
    async def databases(self, partition: Partition) -> AsyncIterator[dict[str, str]]:
        """One for each block."""
        async with AsyncExitStack() as stack:
            urls: dict[str, str] = {}
            for block in partition:
                own = dedicated_database(self.server_url, self.template)
                urls |= dict.fromkeys(block, await stack.enter_async_context(own))
            yield urls

    def folder(self, name: str) -> Path:
        folder = self.scratch / f"parted-{name}"
        folder.mkdir(exist_ok=True)
        return folder


@asynccontextmanager
async def in_process(
    resources: TestResources, name: str, urls: Mapping[str, str], **settings: Any
) -> AsyncIterator[PartitionedApp]:
    """The partition of that name, on these databases."""
    addresses = {"database_urls": urls, "database_pool_min": 1}
    with EmbeddedValkey() as redis_url:
        addresses["redis_url"] = redis_url
        given = addresses | SLOW_MACHINE_SETTINGS | settings
        async with open_partitioned_app(
            PARTITIONS[name], resources.folder(name), unchanged, **given
        ) as partitioned_app:
            yield partitioned_app


@asynccontextmanager
async def on_one_database(
    resources: TestResources, name: str, **settings: Any
) -> AsyncIterator[PartitionedApp]:
    async with (
        resources.databases(PARTITIONS[TOGETHER]) as urls,
        in_process(resources, name, urls, **settings) as partitioned_app,
    ):
        yield partitioned_app


async def log_of_partition(resources: TestResources, name: str) -> Log:
    """In one process, each block with a database of its own."""
    async with (
        resources.databases(PARTITIONS[name]) as urls,
        in_process(resources, name, urls) as partitioned_app,
        sql_inspector(urls) as inspector,
    ):
        return await log_of(ScenarioRunner(partitioned_app.server, partitioned_app.http, inspector))


async def log_in_memory(resources: TestResources) -> Log:
    """Together, in this process: from outside nobody sees the tables of a memory."""
    partition = PARTITIONS[TOGETHER]
    async with open_partitioned_app(
        partition, resources.folder("memory"), storage="memory"
    ) as partitioned_app:
        inspector = MemoryInspector(partitioned_app.containers["orders"])
        return await log_of(ScenarioRunner(partitioned_app.server, partitioned_app.http, inspector))


async def log_of_processes(resources: TestResources, name: str) -> Log:
    """The same partition, each block a process of its own with a database of its own."""
    partition = [frozenset(context for context in block) for block in PARTITIONS[name]]
    folder = resources.folder(f"real-{name}")
    with EmbeddedValkey() as redis_url:
        async with (
            resources.databases(PARTITIONS[name]) as urls,
            split_cluster(
                folder,
                partition,
                by_name(urls),
                redis_url,
                None,
                secret_key=SECRET,
                **SLOW_MACHINE_SETTINGS,
            ) as split,
            open_runner(split.server, urls) as runner,
        ):
            log = await log_of(runner)
    assert faults_in(folder) == []
    return log


async def log_of_workers(resources: TestResources) -> Log:
    """All together, in two workers behind one address."""
    folder = resources.folder("workers")
    with EmbeddedValkey() as redis_url:
        async with resources.databases(PARTITIONS[TOGETHER]) as urls:
            addresses = {"database_urls": as_json(by_name(urls)), "redis_url": redis_url}
            given = environment(folder, secret_key=SECRET, **addresses)
            with running(folder, given, "--workers", "2") as server:
                async with open_runner(server, urls) as runner:
                    log = await log_of(runner)
    assert faults_in(folder) == []
    return log


def faults_in(folder: Path) -> list[str]:
    """What the processes say went wrong with themselves: a story is no reason for any of it."""
    lines = [line for log in folder.rglob("*.log") for line in log.read_text().splitlines()]
    return [line for line in lines if '"level":"error"' in line]


def by_name(urls: Mapping[str, str]) -> dict[str, str]:
    return dict(urls.items())


@asynccontextmanager
async def open_runner(
    server: RunningServer, urls: Mapping[str, str]
) -> AsyncIterator[ScenarioRunner]:
    async with httpx2.AsyncClient(timeout=20) as http, sql_inspector(urls) as inspector:
        yield ScenarioRunner(server, http, inspector)


async def log_of(runner: ScenarioRunner) -> Log:
    await play(runner)
    await runner.close()
    return runner.log


@asynccontextmanager
async def sql_inspector(urls: Mapping[str, str]) -> AsyncIterator[SqlInspector]:
    inspector = SqlInspector(urls)
    try:
        yield inspector
    finally:
        await inspector.close()
