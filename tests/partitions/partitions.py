"""All ways to part the contexts into processes."""

from collections.abc import Iterator, Sequence

from markethall.contexts import context_names

Block = tuple[str, ...]
Partition = tuple[Block, ...]


def partitions_of(contexts: Sequence[str]) -> Iterator[Partition]:
    """Every set partition once: the first joins each block of the others, or stays alone."""
    if not contexts:
        yield ()
        return
    first, *others = contexts
    for partition in partitions_of(others):
        for at, block in enumerate(partition):
            yield (*partition[:at], (first, *block), *partition[at + 1 :])
        yield ((first,), *partition)


def name_of(partition: Partition) -> str:
    """`users+orders|inventory|payments`, the contexts in the order of the enumeration."""
    blocks = sorted(sorted(block, key=_place) for block in partition)
    blocks.sort(key=lambda block: _place(block[0]))
    return "|".join("+".join(block) for block in blocks)


def _place(context: str) -> int:
    return list(context_names()).index(context)


PARTITIONS = {name_of(partition): partition for partition in partitions_of(list(context_names()))}

# as real processes too: nothing apart; everything apart; the caller alone, so that every call goes
# over the wire to one process; and two halves, where calls and events go both ways of the cut
TOGETHER = "users+inventory+orders+payments"
APART = "users|inventory|orders|payments"
ALONE = "users+inventory+payments|orders"
HALVES = "users+orders|inventory+payments"
EXTREMES = (TOGETHER, APART, ALONE, HALVES)
