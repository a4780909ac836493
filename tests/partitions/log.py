"""The log of a scenario: responses, published and received events, stored rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile, zip_longest
from typing import Final

from tests.partitions.log_normalizer import LogNormalizer
from tests.partitions.server_inspector import ServerInspector

# the numbers of characters to show of a different line: before the first difference, and in total
_BEFORE: Final = 60
_SHOWN: Final = 200


@dataclass
class Log:
    """The lines of a run. They are normalized, so that they are equal in every run."""

    normalizer: LogNormalizer = field(default_factory=LogNormalizer)
    lines: list[str] = field(default_factory=list)
    # the number of lines about stored rows, which are the last lines
    stored: int = 0

    def write(self, *texts: str) -> None:
        self.lines += [self.normalizer.normalize(text) for text in texts]

    async def close(self, inspector: ServerInspector) -> None:
        """Wait until no event is pending, then write all events and all rows of all tables."""
        await inspector.wait_until_idle()
        self.write(*await inspector.events())
        self.lines += self.normalizer.normalize_sorted(await inspector.inboxes())
        for table, rows in (await inspector.tables()).items():
            stored = [f"{table} has {len(rows)} rows", *self.normalizer.normalize_sorted(rows)]
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
    """Compare line by line. A missing or additional line is a difference too."""
    pairs = list(zip_longest(expected, found))
    return Comparison(
        compared=len(pairs),
        differences=[
            _describe_difference(number, str(one), str(other))
            for number, (one, other) in enumerate(pairs, start=1)
            if one != other
        ],
    )


def _describe_difference(number: int, expected: str, found: str) -> str:
    """Return the parts of both lines around the first different character."""
    equal = takewhile(lambda pair: pair[0] == pair[1], zip(expected, found, strict=False))
    start = max(0, sum(1 for _ in equal) - _BEFORE)
    shown = slice(start, start + _SHOWN)
    return f"line {number}, from {start}:\n  expected {expected[shown]}\n  found    {found[shown]}"
