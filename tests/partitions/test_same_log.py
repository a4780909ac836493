"""Test that the scenario gives the same log in every topology.

An ordinary run has each partition once: four as real processes, all others in one process. `make
test-topologies` also runs those four in one process.
"""

import os
from collections.abc import Callable, Sequence

import pytest

from tests.partitions.log import Log, compared
from tests.partitions.partitions import MONOLITH, PARTITIONS, PROCESS_PARTITIONS
from tests.partitions.servers import (
    PartitionResources,
    log_in_memory,
    log_of_partition,
    log_of_processes,
    log_of_workers,
)

Record = Callable[[str, object], None]

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"

# minimum numbers of lines, because empty logs would be equal too
MIN_RESPONSE_LINES, MIN_STORED_LINES = 8000, 300


@pytest.fixture(scope="session")
async def reference(resources: PartitionResources) -> Log:
    """The log of the monolith on Postgres; the tests compare all other logs with it."""
    log = await log_of_partition(resources, MONOLITH)
    assert len(log.without_tables()) > MIN_RESPONSE_LINES
    assert log.stored > MIN_STORED_LINES
    return log


def assert_same(record: Record, expected: Sequence[str], found: Sequence[str]) -> None:
    comparison = compared(expected, found)
    record("lines_compared", comparison.compared)
    record("differences", len(comparison.differences))
    assert not comparison.differences, "\n".join(comparison.differences[:8])


@pytest.mark.parametrize(
    "partition", [name for name in PARTITIONS if FULL or name not in PROCESS_PARTITIONS]
)
async def test_partition_in_one_process_gives_same_log(
    resources: PartitionResources, reference: Log, partition: str, record_property: Record
) -> None:
    log = await log_of_partition(resources, partition)

    assert_same(record_property, reference.lines, log.lines)


@pytest.mark.parametrize("partition", PROCESS_PARTITIONS)
async def test_separate_processes_give_same_log(
    resources: PartitionResources, reference: Log, partition: str, record_property: Record
) -> None:
    log = await log_of_processes(resources, partition)

    assert_same(record_property, reference.lines, log.lines)


async def test_two_workers_give_same_log(
    resources: PartitionResources, reference: Log, record_property: Record
) -> None:
    log = await log_of_workers(resources)

    assert_same(record_property, reference.lines, log.lines)


async def test_memory_backend_gives_same_log(
    resources: PartitionResources, reference: Log, record_property: Record
) -> None:
    """Memory storage has no tables, so only responses and events are compared."""
    log = await log_in_memory(resources)

    assert_same(record_property, reference.without_tables(), log.lines)


def test_difference_is_detected(reference: Log) -> None:
    lines = reference.lines
    changed = [line.replace("id-30", "id-31") for line in lines]

    assert compared(lines, lines).differences == []
    (short,) = compared(lines, lines[:-1]).differences
    assert short.startswith(f"line {len(lines)}, from 0:\n  expected {lines[-1][:200]}\n")
    assert short.endswith("found    None")
    assert len(compared(lines, [*lines[:7], "planted", *lines[8:]]).differences) == 1
    assert len(compared(lines, changed).differences) > 1
