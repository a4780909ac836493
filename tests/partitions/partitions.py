"""All partitions, which are the ways to distribute the contexts over processes.

A block of a partition is the group of contexts in one process.
"""

from collections.abc import Iterator, Sequence

from markethall.contexts import context_names

Block = tuple[str, ...]
Partition = tuple[Block, ...]


def partitions_of(contexts: Sequence[str]) -> Iterator[Partition]:
    """Yield every partition once.

    The algorithm is recursive: into each partition of the other contexts, it puts the first context
    once as a member of each block, and once as a block of its own.
    """
    if not contexts:
        yield ()
        return
    first, *others = contexts
    for partition in partitions_of(others):
        for index, block in enumerate(partition):
            yield (*partition[:index], (first, *block), *partition[index + 1 :])
        yield ((first,), *partition)


def name_of(partition: Partition) -> str:
    """Return a name such as `users+orders|inventory|payments`.

    Contexts within a block are in the order of installation. Blocks are in the order of their first
    contexts.
    """
    blocks = sorted(sorted(block, key=_position) for block in partition)
    blocks.sort(key=lambda block: _position(block[0]))
    return "|".join("+".join(block) for block in blocks)


def _position(context: str) -> int:
    return list(context_names()).index(context)


PARTITIONS = {name_of(partition): partition for partition in partitions_of(list(context_names()))}

# These partitions also run as real processes. In ORDERS_ALONE every contract call is remote. In
# HALVES requests go in both directions: orders calls inventory and payments, and these ask users
# whether staff tokens are still valid.
MONOLITH = "users+inventory+orders+payments"
FULL_SPLIT = "users|inventory|orders|payments"
ORDERS_ALONE = "users+inventory+payments|orders"
HALVES = "users+orders|inventory+payments"
PROCESS_PARTITIONS = (MONOLITH, FULL_SPLIT, ORDERS_ALONE, HALVES)


def one_of_each_other_shape() -> list[str]:
    """Return the first partition of each shape that no partition with real processes has.

    The shape of a partition is the sizes of its blocks.
    """
    with_processes = {shape_of(name) for name in PROCESS_PARTITIONS}
    by_shape: dict[tuple[int, ...], str] = {}
    for name in PARTITIONS:
        by_shape.setdefault(shape_of(name), name)
    return [name for shape, name in by_shape.items() if shape not in with_processes]


def shape_of(name: str) -> tuple[int, ...]:
    return tuple(sorted(len(block) for block in PARTITIONS[name]))
