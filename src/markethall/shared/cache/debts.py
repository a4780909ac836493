"""Forgets that Redis has not confirmed."""

import json
from collections.abc import Sequence

from markethall.shared.cache.ports import Forgotten
from markethall.shared.redis import Script

TOMBSTONE = 60.0  # seconds; a load that took longer than half of that keeps nothing
DEAD = b"x"

CHANNEL = "markethall:cache"

# names <- token, milliseconds, channel, what is said there, then for each name the kind of its
# tombstone; nothing: a generation
FORGET = Script("""
for i, name in ipairs(KEYS) do
  if ARGV[i + 4] == '' then
    redis.call('SET', name, ARGV[1])
  else
    redis.call('SET', name, ARGV[i + 4] .. ARGV[1], 'PX', ARGV[2])
  end
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
""")

Debt = Forgotten
MANY = 100


def said_of(names: Sequence[Forgotten]) -> str:
    """For the other processes."""
    return json.dumps(names, separators=(",", ":"))


def read_said(text: str | bytes) -> list[Forgotten]:
    """Nothing, if it is not what `said_of` writes."""
    try:
        return [(str(space), key) for space, key in json.loads(text)]
    except (ValueError, TypeError):
        return []


class Debts:
    """Each has a number: to forget the same key again is another debt, not yet settled."""

    def __init__(self) -> None:
        self._owed: dict[Debt, int] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._owed)

    def owe(self, space: str, key: str | None) -> None:
        """Bounded: beyond some number the whole space is forgotten."""
        if (space, None) in self._owed or len(self._owed) >= MANY:
            key = None
        if key is None:
            self._owed = {debt: n for debt, n in self._owed.items() if debt[0] != space}
        self._count += 1
        self._owed[space, key] = self._count

    def bill(self) -> dict[Debt, int]:
        return dict(self._owed)

    def settle(self, bill: dict[Debt, int]) -> None:
        for debt, number in bill.items():
            if self._owed.get(debt) == number:
                del self._owed[debt]
