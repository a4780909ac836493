"""Test that the partitions are complete and distinct."""

from markethall.contexts import context_names
from tests.partitions.partitions import (
    PARTITIONS,
    PROCESS_PARTITIONS,
    one_of_each_other_shape,
    partitions_of,
    shape_of,
)


def test_there_are_fifteen_partitions_of_four_contexts() -> None:
    found = list(partitions_of(list(context_names())))

    as_sets = {frozenset(frozenset(block) for block in partition) for partition in found}
    assert len(found) == len(as_sets) == len(PARTITIONS) == 15
    for partition in found:
        assert sorted(context for block in partition for context in block) == sorted(
            context_names()
        )


def test_partition_counts_of_fewer_contexts() -> None:
    contexts = list(context_names())

    assert [len(list(partitions_of(contexts[:n]))) for n in range(5)] == [1, 1, 2, 5, 15]


def test_monolith_and_full_split_are_included() -> None:
    assert set(PROCESS_PARTITIONS) <= set(PARTITIONS)


def test_sample_and_partitions_with_processes_have_each_shape_once() -> None:
    shapes = [shape_of(name) for name in (*PROCESS_PARTITIONS, *one_of_each_other_shape())]

    assert sorted(shapes) == [(1, 1, 1, 1), (1, 1, 2), (1, 3), (2, 2), (4,)]
