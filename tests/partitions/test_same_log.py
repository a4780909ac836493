"""The differential log: one story, told in every topology, and not a line is different."""

from collections.abc import Callable, Sequence

import pytest

from tests.partitions.log import Log, compared
from tests.partitions.partitions import EXTREMES, PARTITIONS, TOGETHER
from tests.partitions.servers import (
    TestResources,
    log_in_memory,
    log_of_partition,
    log_of_processes,
    log_of_workers,
)

Record = Callable[[str, object], None]

# so much at least is in a story; a log of nothing would be equal to any other
ANSWERED, STORED = 8000, 300


@pytest.fixture(scope="session")
async def reference(resources: TestResources) -> Log:
    """All together on Postgres: what the others are compared with."""
    log = await log_of_partition(resources, TOGETHER)
    assert len(log.without_tables()) > ANSWERED
    assert log.stored > STORED
    return log


def same(record: Record, expected: Sequence[str], found: Sequence[str]) -> None:
    comparison = compared(expected, found)
    record("lines_compared", comparison.compared)
    record("differences", len(comparison.differences))
    assert not comparison.differences, "\n".join(comparison.differences[:8])


@pytest.mark.parametrize("partition", PARTITIONS)
async def test_every_partition_in_one_process_gives_same_log(
    resources: TestResources, reference: Log, partition: str, record_property: Record
) -> None:
    """The first is all together once more: the same story gives the same log."""
    log = await log_of_partition(resources, partition)

    same(record_property, reference.lines, log.lines)


@pytest.mark.parametrize("partition", EXTREMES)
async def test_separate_processes_give_same_log(
    resources: TestResources, reference: Log, partition: str, record_property: Record
) -> None:
    log = await log_of_processes(resources, partition)

    same(record_property, reference.lines, log.lines)


async def test_two_workers_give_same_log(
    resources: TestResources, reference: Log, record_property: Record
) -> None:
    log = await log_of_workers(resources)

    same(record_property, reference.lines, log.lines)


async def test_memory_backend_gives_same_log(
    resources: TestResources, reference: Log, record_property: Record
) -> None:
    """Answers and events; there are no tables that could be read."""
    log = await log_in_memory(resources)

    same(record_property, reference.without_tables(), log.lines)


def test_difference_is_detected(reference: Log) -> None:
    lines = reference.lines
    changed = [line.replace("id-30", "id-31") for line in lines]

    assert compared(lines, lines).differences == []
    (short,) = compared(lines, lines[:-1]).differences
    assert short.startswith(f"line {len(lines)}, from 0:\n  expected {lines[-1][:200]}\n")
    assert short.endswith("found    None")
    assert len(compared(lines, [*lines[:7], "planted", *lines[8:]]).differences) == 1
    assert len(compared(lines, changed).differences) > 1
