"""The log of a story: what was answered, what was published and received, what is stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile, zip_longest
from typing import Final

from tests.partitions.log_normalizer import LogNormalizer
from tests.partitions.server_inspector import ServerInspector

# of a line that differs: characters before the difference, and in all
_BEFORE: Final = 60
_SHOWN: Final = 200


@dataclass
class Log:
    """Lines that must be the same in every run of the same story."""

    names: LogNormalizer = field(default_factory=LogNormalizer)
    lines: list[str] = field(default_factory=list)
    # how many of them say what is stored; they stand at the end
    stored: int = 0

    def write(self, *texts: str) -> None:
        self.lines += [self.names.normalize(text) for text in texts]

    async def close(self, inspector: ServerInspector) -> None:
        """All has come to rest: the events, in their order, and every row of every table."""
        await inspector.wait_until_idle()
        self.write(*await inspector.events())
        self.lines += self.names.normalize_sorted(await inspector.inboxes())
        for table, rows in (await inspector.tables()).items():
            stored = [f"{table} has {len(rows)} rows", *self.names.normalize_sorted(rows)]
            self.lines += [f"{table}: {line}" for line in stored]
            self.stored += len(stored)

    def without_tables(self) -> list[str]:
        return self.lines[: len(self.lines) - self.stored]


@dataclass(frozen=True)
class Comparison:
    compared: int
    differences: Sequence[str]

    def __str__(self) -> str:
        return f"{self.compared:,} lines compared, {len(self.differences)} differences"


def compared(expected: Sequence[str], found: Sequence[str]) -> Comparison:
    """Line by line. A line that is missing or too much is a difference too."""
    pairs = list(zip_longest(expected, found))
    return Comparison(
        compared=len(pairs),
        differences=[
            _told(number, str(one), str(other))
            for number, (one, other) in enumerate(pairs, start=1)
            if one != other
        ],
    )


def _told(number: int, expected: str, found: str) -> str:
    """Both lines, from shortly before the place where they part."""
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(expected, found, strict=False))
    start = max(0, sum(1 for _ in alike) - _BEFORE)
    shown = slice(start, start + _SHOWN)
    return f"line {number}, from {start}:\n  expected {expected[shown]}\n  found    {found[shown]}"
