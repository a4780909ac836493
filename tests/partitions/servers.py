"""Runs the scenario on a partition, with its own databases and its own Valkey."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from markethall.container import ApplicationContainer
from markethall.local.valkey import EmbeddedValkey
from tests.e2e.dedicated_server import dedicated_database, environment
from tests.e2e.servers import RunningServer, as_json, running
from tests.e2e.split_cluster import split_cluster
from tests.partitions.in_process import SECRET, PartitionedApp, open_partitioned_app
from tests.partitions.log import Log
from tests.partitions.partitions import MONOLITH, PARTITIONS, Partition
from tests.partitions.scenario import play
from tests.partitions.scenario_runner import ScenarioRunner
from tests.partitions.server_inspector import MemoryInspector, SqlInspector

# long timeouts for slow machines, because these tests do not test timeouts
SLOW_MACHINE_SETTINGS = {
    "request_deadline_seconds": "30",
    "rpc_attempt_timeout_seconds": "10",
    "database_timeout": "20",
}


@dataclass(frozen=True)
class PartitionResources:
    """The Postgres server, the template database and the directory for keys."""

    server_url: str
    template: str
    scratch: Path

    @asynccontextmanager
    async def databases(self, partition: Partition) -> AsyncIterator[dict[str, str]]:
        """Create a database for each block, and yield the URL for each context."""
        async with AsyncExitStack() as stack:
            urls: dict[str, str] = {}
            for block in partition:
                own = dedicated_database(self.server_url, self.template)
                urls |= dict.fromkeys(block, await stack.enter_async_context(own))
            yield urls

    def folder(self, name: str) -> Path:
        folder = self.scratch / f"partition-{name}"
        folder.mkdir(exist_ok=True)
        return folder


@asynccontextmanager
async def in_process(
    resources: PartitionResources, name: str, urls: Mapping[str, str], **settings: Any
) -> AsyncIterator[PartitionedApp]:
    """Open the partition with this name on these databases, in this process."""
    addresses = {"database_urls": urls, "database_pool_min": 1}
    with EmbeddedValkey() as redis_url:
        addresses["redis_url"] = redis_url
        given = addresses | SLOW_MACHINE_SETTINGS | settings
        async with open_partitioned_app(
            PARTITIONS[name], resources.folder(name), ApplicationContainer, **given
        ) as partitioned_app:
            yield partitioned_app


@asynccontextmanager
async def on_one_database(
    resources: PartitionResources, name: str, **settings: Any
) -> AsyncIterator[PartitionedApp]:
    async with (
        resources.databases(PARTITIONS[MONOLITH]) as urls,
        in_process(resources, name, urls, **settings) as partitioned_app,
    ):
        yield partitioned_app


async def log_of_partition(resources: PartitionResources, name: str) -> Log:
    """Run the scenario on a partition in one process, with one database per block."""
    async with (
        resources.databases(PARTITIONS[name]) as urls,
        in_process(resources, name, urls) as partitioned_app,
        sql_inspector(urls) as inspector,
    ):
        return await log_of(ScenarioRunner(partitioned_app.server, partitioned_app.http, inspector))


async def log_in_memory(resources: PartitionResources) -> Log:
    """Run the scenario on the monolith with memory storage, in this process."""
    partition = PARTITIONS[MONOLITH]
    async with open_partitioned_app(
        partition, resources.folder("memory"), storage="memory"
    ) as partitioned_app:
        inspector = MemoryInspector(partitioned_app.containers["orders"])
        return await log_of(ScenarioRunner(partitioned_app.server, partitioned_app.http, inspector))


async def log_of_processes(resources: PartitionResources, name: str) -> Log:
    """Run the scenario on a partition with one process and one database per block."""
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
    assert error_lines(folder) == []
    return log


async def log_of_workers(resources: PartitionResources) -> Log:
    """Run the scenario on the monolith with two worker processes on one port."""
    folder = resources.folder("workers")
    with EmbeddedValkey() as redis_url:
        async with resources.databases(PARTITIONS[MONOLITH]) as urls:
            addresses = {"database_urls": as_json(by_name(urls)), "redis_url": redis_url}
            given = environment(folder, secret_key=SECRET, **addresses)
            with running(folder, given, "--workers", "2") as server:
                async with open_runner(server, urls) as runner:
                    log = await log_of(runner)
    assert error_lines(folder) == []
    return log


def error_lines(folder: Path) -> list[str]:
    """Return the log lines with level error. The scenario must cause none."""
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
