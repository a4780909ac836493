"""Heads of requests that were read once already, byte by byte the same.

Who asks again and again sends the same bytes again and again. What they ask for depends on the
bytes alone, so reading them a second time would find nothing new.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from markethall.shared.log import LONGEST_PATH, agent_text, clean_text
from markethall.shared.warm import Address, Header

# who sends one of these is not kept in mind: it is a secret, or more than a question
_PASSING: Final = frozenset({b"cookie", b"proxy-authorization", b"upgrade"})
_LONGEST: Final = 2048
_MOST_BYTES: Final = 8 * 1024 * 1024
_AROUND: Final = 1024
_MOST_ONCE: Final = 8192


class Asked:
    """A GET by a stranger, as far as its bytes say.

    `forwarded`: the headers that say for whom it comes; `passing`: not to be kept; `line_head` and
    `line_tail`: what of the access line is known already. `tag` and `unchanged`: the entity tag
    that `seen` was last compared with, and what came of it.
    """

    __slots__ = (
        "address",
        "forwarded",
        "line_head",
        "line_tail",
        "passing",
        "seen",
        "tag",
        "unchanged",
    )

    def __init__(self, address: Address, headers: Mapping[bytes, bytes], owner: str) -> None:
        self.address = address
        self.seen = headers.get(b"if-none-match")
        forwarded = headers.get(b"x-forwarded-for")
        self.forwarded: Sequence[Header] = (
            () if forwarded is None else ((b"x-forwarded-for", forwarded),)
        )
        self.passing = not _PASSING.isdisjoint(headers)
        self.line_head = f'"method":"GET","path":{_path(address[0])},"status":'
        self.line_tail = (
            f',"user_agent":{_agent(headers.get(b"user-agent", b"")[:200])},"request_id":"',
            f'","user_id":null,"context":"{owner}"',
        )
        self.tag = ""
        self.unchanged = False


class Heads:
    """At most so many bytes of them; when that is reached it begins anew.

    A head is kept when it comes a second time: most come once, and to keep one costs a tenth of
    its answer.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._asked: dict[bytes, Asked] = {}
        self._bytes = 0
        # hashes: of two heads that share one, the second is kept too soon, that is all
        self._once: set[int] = set()

    def __len__(self) -> int:
        return len(self._asked)

    def find(self, head: bytes) -> Asked | None:
        return self._asked.get(head) if len(head) <= _LONGEST else None

    def keep(self, head: bytes, asked: Asked) -> None:
        if len(head) > _LONGEST or asked.passing or head in self._asked:
            return
        if not self._came_before(hash(head)):
            return
        weight = len(head) + _AROUND
        if self._bytes + weight > self._most_bytes:
            self._asked.clear()
            self._bytes = 0
        self._asked[head] = asked
        self._bytes += weight

    def _came_before(self, name: int) -> bool:
        if name in self._once:
            self._once.remove(name)
            return True
        if len(self._once) >= _MOST_ONCE:
            self._once.clear()
        self._once.add(name)
        return False


@lru_cache(maxsize=4096)
def _path(path: str) -> str:
    return json.dumps(clean_text(path[:LONGEST_PATH]), ensure_ascii=False)


@lru_cache(maxsize=1024)
def _agent(header: bytes) -> str:
    return json.dumps(agent_text(header), ensure_ascii=False)
